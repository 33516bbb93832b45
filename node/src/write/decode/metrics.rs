//! Metrics (opentelemetry/proto/metrics/v1).

use std::sync::Arc;

use oteld_store::model::{Attributes, Metric, MetricKind, MetricRow, Series, Temporality};

use super::attributes::Origin;
use super::points::{DecodedPoint, PointType};
use super::rejects::Reason;
use super::wire::Reader;
use super::{ARC_BYTES, DecodeError, Decoder};

/// Reads an `ExportMetricsServiceRequest`.
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    mut reader: Reader<'_>,
) -> Result<Vec<MetricRow>, DecodeError> {
    let mut rows = Vec::new();
    while let Some(key) = reader.key()? {
        if key.number != 1 {
            reader.skip(key)?;
            continue;
        }
        decoder.resource_group(reader.message(key)?, |decoder, origin, items| {
            items.into_iter().try_for_each(|item| decoder.metric(&mut rows, origin, item))
        })?;
    }
    Ok(rows)
}

/// The `data` of a metric: the points are read once its kind is final.
struct Data<'a> {
    field: u32,
    temporality: Temporality,
    monotonic: bool,
    points: Vec<Reader<'a>>,
}

impl Data<'_> {
    fn point_type(&self) -> PointType {
        match self.field {
            5 | 7 => PointType::Number,
            9 => PointType::Histogram,
            10 => PointType::ExponentialHistogram,
            _ => PointType::Summary,
        }
    }

    fn kind(&self) -> MetricKind {
        let (monotonic, temporality) = (self.monotonic, self.temporality);
        match self.field {
            5 => MetricKind::Gauge,
            7 => MetricKind::Sum { monotonic, temporality },
            9 => MetricKind::Histogram { temporality },
            10 => MetricKind::ExponentialHistogram { temporality },
            _ => MetricKind::Summary,
        }
    }
}

impl Decoder<'_> {
    fn metric(
        &mut self,
        rows: &mut Vec<MetricRow>,
        origin: &Origin,
        mut reader: Reader<'_>,
    ) -> Result<(), DecodeError> {
        let empty = self.strings.empty.clone();
        let mut metric = Metric {
            name: empty.clone(),
            unit: empty.clone(),
            description: empty,
            kind: MetricKind::Gauge,
            metadata: Attributes::default(),
        };
        let mut data: Option<Data<'_>> = None;
        while let Some(key) = reader.key()? {
            match key.number {
                1 => metric.name = self.string(reader.string(key)?)?,
                2 => metric.description = self.string(reader.string(key)?)?,
                3 => metric.unit = self.string(reader.string(key)?)?,
                field @ (5 | 7 | 9 | 10 | 11) => {
                    let current = match data.take() {
                        Some(current) if current.field == field => current,
                        replaced => {
                            self.check_points(replaced)?;
                            Data {
                                field,
                                temporality: Temporality::Unspecified,
                                monotonic: false,
                                points: Vec::new(),
                            }
                        }
                    };
                    data = Some(self.data(current, reader.message(key)?)?);
                }
                12 => self.key_value(&mut metric.metadata, reader.message(key)?)?,
                _ => reader.skip(key)?,
            }
        }
        let Some(data) = data else {
            self.rejects.add(Reason::MetricData, 0, &metric.name);
            return Ok(());
        };
        metric.kind = data.kind();
        self.points(rows, origin, Arc::new(metric), data)
    }

    /// Merges the fields of a `Gauge`, `Sum`, `Histogram`, `ExponentialHistogram` or `Summary`.
    fn data<'m>(&mut self, mut data: Data<'m>, mut reader: Reader<'m>) -> Result<Data<'m>, DecodeError> {
        while let Some(key) = reader.key()? {
            match (key.number, data.field) {
                (1, _) => self.push(&mut data.points, reader.message(key)?)?,
                (2, 7 | 9 | 10) => data.temporality = temporality(reader.int32(key)?),
                (3, 7) => data.monotonic = reader.bool(key)?,
                _ => reader.skip(key)?,
            }
        }
        Ok(data)
    }

    /// Reads points that a later member of the `data` oneof replaced: malformed bytes are refused wherever they are.
    fn check_points(&mut self, replaced: Option<Data<'_>>) -> Result<(), DecodeError> {
        let Some(data) = replaced else { return Ok(()) };
        let point_type = data.point_type();
        data.points.into_iter().try_for_each(|point| self.point(point_type, point).map(|_| ()))
    }

    fn points(
        &mut self,
        rows: &mut Vec<MetricRow>,
        origin: &Origin,
        metric: Arc<Metric>,
        data: Data<'_>,
    ) -> Result<(), DecodeError> {
        let ids = origin.ids.metric(&metric);
        let point_type = data.point_type();
        let mut last: Option<Arc<Series>> = None;
        for reader in data.points {
            let DecodedPoint { attributes, point, reject } = self.point(point_type, reader)?;
            let reject = if metric.name.is_empty() { Some(Reason::MetricName) } else { reject };
            if let Some(reason) = reject {
                self.rejects.add(reason, 1, &metric.name);
                continue;
            }
            let series = match last.take() {
                Some(last) if last.attributes == attributes => last,
                _ => {
                    self.ticket.charge(size_of::<Series>() + ARC_BYTES)?;
                    Arc::new(Series {
                        id: ids.id(&attributes),
                        resource: origin.resource.clone(),
                        scope: origin.scope.clone(),
                        metric: metric.clone(),
                        attributes,
                    })
                }
            };
            last = Some(series.clone());
            self.push(rows, MetricRow { series, point })?;
        }
        Ok(())
    }
}

fn temporality(number: i32) -> Temporality {
    match number {
        1 => Temporality::Delta,
        2 => Temporality::Cumulative,
        _ => Temporality::Unspecified,
    }
}
