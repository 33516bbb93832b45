//! OTLP/HTTP with protobuf bodies that are encoded already.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{Compression, Outcome, Target};

#[derive(Clone)]
pub struct HttpSender {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    compression: Compression,
    tenant: Option<HeaderValue>,
    timeout: Duration,
}

impl HttpSender {
    pub(super) fn new(target: &Target) -> Result<HttpSender, String> {
        let uri = format!("{}{}", target.endpoint.trim_end_matches('/'), target.signal.http_path());
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let tenant = target.tenant.as_deref().map(HeaderValue::from_str).transpose();
        Ok(HttpSender {
            client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector),
            uri: uri.parse().map_err(|error| format!("--endpoint {}: {error}", target.endpoint))?,
            compression: target.compression,
            tenant: tenant.map_err(|_| "--tenant holds characters that no header can".to_owned())?,
            timeout: target.timeout,
        })
    }

    pub(super) async fn send(&mut self, body: Bytes) -> Outcome {
        match tokio::time::timeout(self.timeout, self.exchange(body)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::failed("timeout"),
        }
    }

    async fn exchange(&self, body: Bytes) -> Outcome {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/x-protobuf");
        let body = match self.compression {
            Compression::None => Ok(body),
            Compression::Gzip => {
                request = request.header(CONTENT_ENCODING, "gzip");
                gzip(&body)
            }
            Compression::Zstd => {
                request = request.header(CONTENT_ENCODING, "zstd");
                zstd::bulk::compress(&body, 1).map(Bytes::from)
            }
        };
        if let Some(tenant) = &self.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        let request = match body.map(|body| request.body(Full::new(body))) {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => return Outcome::failed(format!("request: {error}")),
            Err(error) => return Outcome::failed(format!("compression: {error}")),
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Outcome::failed("connection refused or unreachable"),
            Err(_) => return Outcome::failed("connection broken"),
        };
        let status = response.status();
        match response.into_body().collect().await {
            Ok(body) if status == StatusCode::OK => Outcome::accepted(&body.to_bytes()),
            Ok(_) => Outcome::failed(format!("HTTP {}", status.as_u16())),
            Err(_) => Outcome::failed("connection broken"),
        }
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}
