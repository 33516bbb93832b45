//! Attribute values, resources and scopes (opentelemetry/proto/common/v1, resource/v1).

use std::sync::Arc;

use bytes::Bytes;
use oteld_store::model::identity::{ResourceIds, ScopeIds};
use oteld_store::model::{AnyValue, Attributes, Resource, Scope, Stream};

use super::wire::Reader;
use super::{ARC_BYTES, DecodeError, Decoder};

impl<'a> Decoder<'a> {
    /// Merges an `AnyValue` into `value`.
    pub(super) fn any_value(
        &mut self,
        value: &mut AnyValue,
        mut reader: Reader<'_>,
    ) -> Result<(), DecodeError> {
        while let Some(key) = reader.key()? {
            match key.number {
                1 => *value = AnyValue::String(self.string(reader.string(key)?)?),
                2 => *value = AnyValue::Bool(reader.bool(key)?),
                3 => *value = AnyValue::Int(reader.varint(key)? as i64),
                4 => *value = AnyValue::Double(reader.double(key)?),
                5 => {
                    let mut values = match std::mem::take(value) {
                        AnyValue::Array(values) => values,
                        _ => Vec::new(),
                    };
                    self.array(&mut values, reader.message(key)?)?;
                    *value = AnyValue::Array(values);
                }
                6 => {
                    let mut values = match std::mem::take(value) {
                        AnyValue::KeyValues(values) => values,
                        _ => Attributes::default(),
                    };
                    self.key_values(&mut values, reader.message(key)?)?;
                    *value = AnyValue::KeyValues(values);
                }
                7 => {
                    let bytes = reader.bytes(key)?;
                    self.ticket.charge(bytes.len() + ARC_BYTES)?;
                    *value = AnyValue::Bytes(Bytes::copy_from_slice(bytes));
                }
                8 => {
                    reader.int32(key)?;
                    *value = AnyValue::Empty;
                }
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }

    fn array(&mut self, values: &mut Vec<AnyValue>, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(key) = reader.key()? {
            match key.number {
                1 => {
                    let mut value = AnyValue::Empty;
                    self.any_value(&mut value, reader.message(key)?)?;
                    self.push(values, value)?;
                }
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }

    fn key_values(&mut self, values: &mut Attributes, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(key) = reader.key()? {
            match key.number {
                1 => self.key_value(values, reader.message(key)?)?,
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }

    /// Appends a `KeyValue` to `attributes`.
    pub(super) fn key_value(
        &mut self,
        attributes: &mut Attributes,
        mut reader: Reader<'_>,
    ) -> Result<(), DecodeError> {
        let mut name = "";
        let mut value = AnyValue::Empty;
        while let Some(key) = reader.key()? {
            match key.number {
                1 => name = reader.string(key)?,
                2 => self.any_value(&mut value, reader.message(key)?)?,
                3 => {
                    reader.int32(key)?;
                }
                _ => reader.skip(key)?,
            }
        }
        let name = self.string(name)?;
        self.push(&mut attributes.0, (name, value))
    }

    /// Merges a `Resource` into `resource`.
    pub(super) fn resource(
        &mut self,
        resource: &mut Resource,
        mut reader: Reader<'_>,
    ) -> Result<(), DecodeError> {
        while let Some(key) = reader.key()? {
            match key.number {
                1 => self.key_value(&mut resource.attributes, reader.message(key)?)?,
                2 => resource.dropped_attributes_count = reader.uint32(key)?,
                3 => check_entity_ref(reader.message(key)?)?,
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }

    /// Merges an `InstrumentationScope` into `scope`.
    pub(super) fn scope(&mut self, scope: &mut Scope, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(key) = reader.key()? {
            match key.number {
                1 => scope.name = self.string(reader.string(key)?)?,
                2 => scope.version = self.string(reader.string(key)?)?,
                3 => self.key_value(&mut scope.attributes, reader.message(key)?)?,
                4 => scope.dropped_attributes_count = reader.uint32(key)?,
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }

    /// Reads a `ResourceMetrics`, `ResourceLogs` or `ResourceSpans`, which differ only in what `items` reads of each
    /// scope. Fields come in any order, so the scopes wait until the resource is whole, and the items their scope.
    pub(super) fn resource_group<'m>(
        &mut self,
        mut reader: Reader<'m>,
        mut items: impl FnMut(&mut Self, &Origin, Vec<Reader<'m>>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut resource = Resource::default();
        let mut scopes = Vec::new();
        while let Some(key) = reader.key()? {
            match key.number {
                1 => self.resource(&mut resource, reader.message(key)?)?,
                2 => self.push(&mut scopes, reader.message(key)?)?,
                3 => resource.schema_url = self.string(reader.string(key)?)?,
                _ => reader.skip(key)?,
            }
        }
        let ids = ResourceIds::new(self.tenant, &resource);
        let resource = Arc::new(resource);
        for reader in scopes {
            let (scope, readers) = self.scope_group(reader)?;
            let origin =
                Origin { ids: ids.scope(&scope), resource: resource.clone(), scope: Arc::new(scope) };
            items(self, &origin, readers)?;
        }
        Ok(())
    }

    /// Reads a `ScopeMetrics`, `ScopeLogs` or `ScopeSpans` up to its items, which are returned unread.
    fn scope_group<'m>(&mut self, mut reader: Reader<'m>) -> Result<(Scope, Vec<Reader<'m>>), DecodeError> {
        let mut scope = Scope::default();
        let mut items = Vec::new();
        while let Some(key) = reader.key()? {
            match key.number {
                1 => self.scope(&mut scope, reader.message(key)?)?,
                2 => self.push(&mut items, reader.message(key)?)?,
                3 => scope.schema_url = self.string(reader.string(key)?)?,
                _ => reader.skip(key)?,
            }
        }
        Ok((scope, items))
    }
}

/// What the items of a group come from.
pub(super) struct Origin {
    pub(super) resource: Arc<Resource>,
    pub(super) scope: Arc<Scope>,
    pub(super) ids: ScopeIds,
}

impl Origin {
    pub(super) fn stream(&self) -> Arc<Stream> {
        let (resource, scope) = (self.resource.clone(), self.scope.clone());
        Arc::new(Stream { id: self.ids.stream(), resource, scope })
    }
}

/// Reads an `EntityRef`, which is not kept, so that a malformed one is refused like everything else.
fn check_entity_ref(mut reader: Reader<'_>) -> Result<(), DecodeError> {
    while let Some(key) = reader.key()? {
        match key.number {
            1..=4 => {
                reader.string(key)?;
            }
            _ => reader.skip(key)?,
        }
    }
    Ok(())
}

/// An id of exactly `N` bytes; an empty one is absent, which is all zeros. `None` for any other length.
pub(super) fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    if bytes.is_empty() { Some([0; N]) } else { bytes.try_into().ok() }
}
