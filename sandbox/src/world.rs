//! What a living sandbox is made of: addresses, ids and secrets, written once by the daemon when it is ready.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// A living world. Kept in `world.json` (0600); the secrets in it are made up and open nothing real, and stay out of
/// `Debug` all the same.
#[derive(Clone, Serialize, Deserialize)]
pub struct World {
    /// Its id; a new world has a new one.
    pub id: String,
    /// The directory it lives in.
    pub dir: PathBuf,
    /// The proxy in front of moto: the endpoint of all AWS clients.
    pub aws_endpoint: String,
    /// The emulator itself, without faults, tokens and slow states; for looking, not for the product.
    pub moto_endpoint: String,
    /// The instance-metadata stub.
    pub imds_endpoint: String,
    /// Base address of the kits.
    pub kits_url: String,
    /// Port the fake DSS listens on while it is started.
    pub dss_port: u16,
    /// Its base address.
    pub dss_url: String,
    /// Base address of the admin routes.
    pub admin_url: String,
    /// What the admin routes ask for in `x-sandbox-token`.
    pub admin_token: String,
    /// The directory that stands for the root of the host.
    pub host_root: PathBuf,
    /// Command put before each host command; `--user USER -- ARGV...` follows.
    pub host_wrapper: Vec<String>,
    /// AWS account.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// The instance that DSS runs on.
    pub instance_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Subnets of the VPC: the first two in different zones, the third in the zone of the first.
    pub subnets: Vec<String>,
    /// The VPC's `default` security group, which the instance does not have at first.
    pub default_security_group: String,
    /// The security group the instance has at first.
    pub instance_security_group: String,
    /// ARN of the IAM user the service user's keys belong to.
    pub service_user_arn: String,
    /// Access key id for the person who runs dssflow.
    pub access_key_id: String,
    /// Its secret key.
    pub secret_access_key: String,
    /// Buckets of the shipped connections, and last the one for Athena results.
    pub buckets: Vec<String>,
    /// Files that hold the secrets the shipped site refers to, by name (0600).
    pub secrets: Vec<(String, PathBuf)>,
    /// The shipped site with `cluster.mode: dss-plugin`.
    pub site_yaml: PathBuf,
    /// The shipped site with `cluster.mode: sdk`.
    pub site_yaml_sdk: PathBuf,
    /// Scale of simulated durations.
    pub latency: f64,
    /// Pid of the daemon, which leads the process group of the world.
    pub daemon_pid: u32,
    pub(crate) daemon: ProcessId,
    pub(crate) moto: ProcessId,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("id", &self.id)
            .field("dir", &self.dir)
            .field("aws_endpoint", &self.aws_endpoint)
            .field("admin_url", &self.admin_url)
            .field("dss_url", &self.dss_url)
            .field("daemon_pid", &self.daemon_pid)
            .finish_non_exhaustive()
    }
}

/// The files of a world.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Written last by the daemon: its being there means that the world is ready.
    pub(crate) fn world(&self) -> PathBuf {
        self.dir.join("world.json")
    }

    /// The daemon's process, known before the world is ready.
    pub(crate) fn daemon(&self) -> PathBuf {
        self.dir.join("daemon.json")
    }

    /// The emulator's process.
    pub(crate) fn moto(&self) -> PathBuf {
        self.dir.join("moto.json")
    }

    /// Held while a world is started or ended.
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// What the fake DSS remembers over its restarts.
    pub(crate) fn dss_state(&self) -> PathBuf {
        self.dir.join("dss.json")
    }

    pub(crate) fn host_root(&self) -> PathBuf {
        self.dir.join("host")
    }

    pub(crate) fn kits(&self) -> PathBuf {
        self.dir.join("kits")
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.dir.join("secrets")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}
