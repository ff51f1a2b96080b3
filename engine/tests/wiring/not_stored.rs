//! A step gives what cannot be stored.

use dssflow_engine::prelude::*;

struct Open(#[allow(dead_code)] std::net::TcpStream);

async fn connect(_: ActivityCtx, port: u16) -> ActivityResult<Open> {
    std::net::TcpStream::connect(("127.0.0.1", port))
        .map(Open)
        .map_err(|e| ActivityError::retryable("Refused", e.to_string()))
}

fn main() {
    let _ = Workflow::<u16, ()>::build("wrong", |w| {
        w.step("connect", connect, w.input());
    });
}
