//! Compiles the internal protocol with protox, so that no protoc is needed.

use std::error::Error;

/// Every file of the internal protocol, below `proto/`.
const FILES: &[&str] = &["proto/meta.proto", "proto/node.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().bytes(".").build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
