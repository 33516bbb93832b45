//! Ports for nodes that stop and start again.

use std::net::TcpListener;
use std::sync::Mutex;

/// Ports of the loopback interface that nobody listens on. Below the range from which the kernel takes ports for
/// connections, so that a node that is down finds its port free when it comes back.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: Mutex<u32> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    let range = 12_000..32_000;
    if *next == 0 {
        // Test processes that run side by side begin at different places.
        *next = std::process::id().wrapping_mul(97);
    }
    std::array::from_fn(|_| {
        loop {
            *next = next.wrapping_add(1);
            let port = range.start + (*next % u32::from(range.end - range.start)) as u16;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}
