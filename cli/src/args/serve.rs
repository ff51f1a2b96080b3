//! The options of the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Also serve the HTTP API on this address and port of this machine, as 127.0.0.1:7477; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", env = "DSSFLOW_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// The file of the token that HTTP clients must show, made when it is not there [default: control.token in the store's
    /// directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A host by which HTTP clients may call the server besides the address it listens on, as a reverse proxy passes it on
    /// (may be repeated)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) allow_host: Vec<String>,
}
