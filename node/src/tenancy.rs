//! Whose request it is: the `X-Scope-OrgID` header, else the tenant `default`.

use http::HeaderMap;
use oteld_store::model::Tenant;
use thiserror::Error;

/// The header that names the tenant, as Mimir, Loki and Tempo have it.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// Longest tenant name, in bytes.
pub const TENANT_LENGTH_MAX: usize = 150;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum TenantError {
    #[error("the X-Scope-OrgID header is not valid ASCII")]
    NotAscii,
    #[error("the tenant name in X-Scope-OrgID is longer than {TENANT_LENGTH_MAX} bytes")]
    TooLong,
    #[error("the tenant name in X-Scope-OrgID may hold letters, digits and !-_.*'() only")]
    BadCharacter,
}

/// The tenant of a request by its headers (gRPC metadata included).
pub fn tenant_of(headers: &HeaderMap) -> Result<Tenant, TenantError> {
    let Some(value) = headers.get(TENANT_HEADER) else { return Ok(Tenant::default()) };
    let name = value.to_str().map_err(|_| TenantError::NotAscii)?;
    if name.is_empty() {
        return Ok(Tenant::default());
    }
    if name.len() > TENANT_LENGTH_MAX {
        return Err(TenantError::TooLong);
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c)) {
        return Err(TenantError::BadCharacter);
    }
    Ok(Tenant::new(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_the_header_is_the_default_tenant() {
        assert_eq!(tenant_of(&HeaderMap::new()), Ok(Tenant::default()));
    }

    #[test]
    fn a_name_that_would_reach_into_paths_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(TENANT_HEADER, "a/../b".parse().expect("a header value"));
        assert_eq!(tenant_of(&headers), Err(TenantError::BadCharacter));
    }
}
