//! OTLP/gRPC with bodies that are encoded already.

use bytes::{Buf, BufMut, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::{Compression, Outcome, Target};

const TENANT_HEADER: &str = "x-scope-orgid";

#[derive(Clone)]
pub struct GrpcSender {
    client: Grpc<Channel>,
    path: PathAndQuery,
    tenant: Option<MetadataValue<Ascii>>,
}

impl GrpcSender {
    pub(super) fn new(target: &Target) -> Result<GrpcSender, String> {
        let endpoint = Endpoint::from_shared(target.endpoint.clone())
            .map_err(|error| format!("--endpoint {}: {error}", target.endpoint))?
            .timeout(target.timeout)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let mut client = Grpc::new(endpoint.connect_lazy());
        client = match target.compression {
            Compression::None => client,
            Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => client.send_compressed(CompressionEncoding::Zstd),
        };
        let tenant = target.tenant.as_deref().map(str::parse).transpose();
        Ok(GrpcSender {
            client,
            path: PathAndQuery::from_static(target.signal.grpc_path()),
            tenant: tenant.map_err(|_| "--tenant holds characters that no header can".to_owned())?,
        })
    }

    pub(super) async fn send(&mut self, body: Bytes) -> Outcome {
        let mut request = Request::new(body);
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert(TENANT_HEADER, tenant.clone());
        }
        if let Err(error) = self.client.ready().await {
            return Outcome::failed(format!("connection: {}", root_cause(&error)));
        }
        match self.client.unary(request, self.path.clone(), RawCodec).await {
            Ok(response) => Outcome::accepted(&response.into_inner()),
            Err(status) => Outcome::failed(format!("{:?}", status.code())),
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Passes bytes through: the message is encoded before, and decoded after, it comes here.
#[derive(Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
