//! A router whose cluster is a row set.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use oteld::read::ask::{Answer, Ask, AskOptions, ReadState};
use oteld::read::prometheus;
use oteld_env::Env;
use oteld_query::{LeafContext, LeafRequest, Limits, QueryError, leaf};
use oteld_store::model::identity::series_id;
use oteld_store::model::*;
use oteld_store::scan::{RowSet, ScanBudget};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt;

/// Seconds since the Unix epoch at which tests' time begins.
pub(crate) const START: u64 = 1_700_000_000;

pub(crate) const COUNTER: MetricKind =
    MetricKind::Sum { monotonic: true, temporality: Temporality::Cumulative };

/// How the cluster answers.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mood {
    #[default]
    Well,
    Incomplete(&'static str),
    Failing(QueryError),
    Silent,
}

#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) rows: RowSet,
    pub(crate) mood: Mood,
    pub(crate) limits: Limits,
}

struct Cluster(World);

#[async_trait]
impl Ask for Cluster {
    async fn ask(&self, tenant: &Tenant, request: LeafRequest, _: AskOptions) -> Result<Answer, QueryError> {
        let budget = ScanBudget::unlimited();
        let context = LeafContext {
            scan: &self.0.rows,
            tenant: tenant.clone(),
            shards: Arc::new(BTreeSet::from([Shard(0)])),
            budget: &budget,
            limits: &self.0.limits,
        };
        let incomplete = match &self.0.mood {
            Mood::Well => Vec::new(),
            Mood::Incomplete(why) => vec![(*why).to_owned()],
            Mood::Failing(error) => return Err(error.clone()),
            Mood::Silent => std::future::pending().await,
        };
        // As between nodes: over the wire and back.
        let reply = carried(&leaf(&context, &carried(&request))?);
        Ok(Answer { replies: vec![reply], incomplete, ..Answer::default() })
    }
}

fn carried<T: Serialize + DeserializeOwned>(message: &T) -> T {
    rmp_serde::from_slice(&rmp_serde::to_vec(message).expect("it encodes")).expect("it decodes")
}

impl World {
    pub(crate) fn add(
        &mut self,
        name: &str,
        unit: &str,
        kind: MetricKind,
        attributes: &[(&str, &str)],
        points: Vec<Point>,
    ) {
        let tenant = Tenant::default();
        let attributes_of_resource = [("service.name", "cart"), ("host.name", "h")];
        let resource = Arc::new(Resource {
            attributes: attributes_of_resource.into_iter().collect(),
            ..Resource::default()
        });
        let metric = Arc::new(Metric {
            name: name.into(),
            unit: unit.into(),
            description: "what it is".into(),
            kind,
            metadata: Attributes::default(),
        });
        let scope = Arc::new(Scope::default());
        let attributes: Attributes = attributes.iter().copied().collect();
        let id = series_id(&tenant, &resource, &scope, &metric, &attributes);
        let series = Arc::new(Series { id, resource, scope, metric, attributes });
        let rows = points.into_iter().map(|point| MetricRow { series: series.clone(), point }).collect();
        self.rows.add(&tenant, Shard(0), Rows::Metrics(rows));
    }

    fn router(&self) -> Router {
        let state = ReadState {
            env: Env::real(),
            ask: Arc::new(Cluster(self.clone())),
            limits: Arc::new(self.limits.clone()),
        };
        prometheus::router().with_state(state)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router().oneshot(request).await.expect("the router never fails");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    pub(crate) async fn get(&self, path_and_query: &str) -> (StatusCode, String) {
        let uri = format!("/api/v1/{path_and_query}");
        self.send(Request::get(uri).body(Body::empty()).expect("a request")).await
    }

    /// The `data` of a success, as text.
    pub(crate) async fn data(&self, path_and_query: &str) -> String {
        let (status, body) = self.get(path_and_query).await;
        assert_eq!(status, StatusCode::OK, "{path_and_query}: {body}");
        let data =
            body.strip_prefix(r#"{"status":"success","data":"#).and_then(|rest| rest.strip_suffix('}'));
        data.unwrap_or_else(|| panic!("{path_and_query}: {body}")).to_owned()
    }
}

/// A point at `seconds` after [`START`].
pub(crate) fn point(seconds: u64, value: PointValue) -> Point {
    Point {
        time_unix_nano: (START + seconds) * 1_000_000_000,
        start_time_unix_nano: START * 1_000_000_000,
        flags: 0,
        value,
        exemplars: Vec::new(),
    }
}
