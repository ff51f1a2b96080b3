//! `host.facts`: what the machine is, and whether DSS may live on it.
//!
//! Read only. Requirements after Dataiku's installation page: `x86_64`, an `AlmaLinux` or RHEL family system, at
//! least 32 GB of memory and 100 GB of disk on xfs or ext4. All that does not fit is told in one go.

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::step::{host, root};
use super::transport::{Host, HostUser};

/// What is asked of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FactsInput {
    /// Where the data directory will be; need not exist.
    pub data_dir: String,
    /// Least memory, in GB of 10^9 bytes; the system's share of up to 5 % is forgiven.
    pub min_memory_gb: u64,
    /// Least size of the file system of the data directory, in GB of 10^9 bytes.
    pub min_disk_gb: u64,
}

/// What the machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Machine architecture, as `x86_64`.
    pub arch: String,
    /// `ID` of os-release, as `almalinux`.
    pub os_id: String,
    /// `VERSION_ID` of os-release.
    pub os_version: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MB.
    pub memory_mb: u64,
    /// Size of the data directory's file system, in MB.
    pub disk_mb: u64,
    /// Its type, as `xfs`.
    pub file_system: String,
    /// Full host name.
    pub hostname: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct HostFacts;

impl Activity for HostFacts {
    type Input = FactsInput;
    type Output = Facts;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &FactsInput) -> ActivityResult<Facts> {
        let host = host(ctx)?;
        let facts = gather(&*host, &input.data_dir).await?;
        let problems = problems(&facts, input);
        if problems.is_empty() {
            return Ok(facts);
        }
        Err(ActivityError::terminal("HostDoesNotFit", problems.join("; "))
            .help("choose a machine that meets Dataiku's requirements, or lower `host.requirements` in the site file")
            .no_effect())
    }

    fn describe(&self, input: &FactsInput) -> String {
        format!(
            "look at the host: x86_64, at least {} GB of memory, {} GB of disk",
            input.min_memory_gb, input.min_disk_gb
        )
    }
}

pub(crate) async fn gather(host: &dyn Host, data_dir: &str) -> ActivityResult<Facts> {
    let at = existing_parent(host, data_dir).await?;
    let ask = |argv: &[&str]| host.run(root(argv.iter().copied()));
    let (arch, cpus, disk, hostname) = tokio::try_join!(
        ask(&["uname", "-m"]),
        ask(&["nproc"]),
        ask(&["df", "-PTk", &at]),
        ask(&["hostname"]),
    )?;
    let release = host.read_file(&HostUser::Root, "/etc/os-release").await?.unwrap_or_default();
    let memory = host.read_file(&HostUser::Root, "/proc/meminfo").await?.unwrap_or_default();
    let release = String::from_utf8_lossy(&release).into_owned();
    let memory = String::from_utf8_lossy(&memory).into_owned();
    let of_release = |key: &str| {
        let line = release.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let disk = disk.text();
    let mut fields = disk.lines().last().unwrap_or_default().split_whitespace().skip(1);
    let file_system = fields.next().unwrap_or_default().to_owned();
    let disk_kb: u64 = fields.next().and_then(|f| f.parse().ok()).unwrap_or(0);
    let memory_kb =
        memory.lines().find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    Ok(Facts {
        arch: arch.text(),
        os_id: of_release("ID"),
        os_version: of_release("VERSION_ID"),
        cpus: cpus.text().parse().unwrap_or(0),
        memory_mb: memory_kb.unwrap_or(0_u64) * 1024 / 1_000_000,
        disk_mb: disk_kb * 1024 / 1_000_000,
        file_system,
        hostname: hostname.text(),
    })
}

/// The nearest directory above `path` that is there; `df` wants one.
async fn existing_parent(host: &dyn Host, path: &str) -> ActivityResult<String> {
    let mut path = path.to_owned();
    while path.len() > 1 && !host.exists(&HostUser::Root, &path).await? {
        path.truncate(path.rfind('/').unwrap_or(0));
    }
    Ok(if path.is_empty() { "/".to_owned() } else { path })
}

pub(crate) fn problems(facts: &Facts, input: &FactsInput) -> Vec<String> {
    let mut problems = Vec::new();
    if facts.arch != "x86_64" {
        problems.push(format!("the architecture is {}, DSS needs x86_64", facts.arch));
    }
    let families = ["almalinux", "rhel", "rocky", "centos", "ol"];
    if !families.contains(&facts.os_id.as_str()) {
        problems.push(format!(
            "the system is {} {}, an AlmaLinux or RHEL 8 or 9 is needed",
            facts.os_id, facts.os_version
        ));
    }
    if facts.memory_mb * 100 < input.min_memory_gb * 1000 * 95 {
        problems.push(format!(
            "{} MB of memory, at least {} GB are needed",
            facts.memory_mb, input.min_memory_gb
        ));
    }
    if facts.disk_mb < input.min_disk_gb * 1000 {
        problems.push(format!(
            "the file system of {} has {} MB, at least {} GB are needed",
            input.data_dir, facts.disk_mb, input.min_disk_gb
        ));
    }
    if !["xfs", "ext4"].contains(&facts.file_system.as_str()) {
        problems.push(format!("{} lies on {}, DSS needs xfs or ext4", input.data_dir, facts.file_system));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_does_not_fit_is_told_at_once() {
        let input = FactsInput { data_dir: "/data/dss".into(), min_memory_gb: 32, min_disk_gb: 100 };
        let good = Facts {
            arch: "x86_64".into(),
            os_id: "almalinux".into(),
            os_version: "8.10".into(),
            cpus: 8,
            memory_mb: 31_000,
            disk_mb: 107_000,
            file_system: "xfs".into(),
            hostname: "dss".into(),
        };
        assert_eq!(problems(&good, &input), Vec::<String>::new());
        let bad = Facts { arch: "aarch64".into(), memory_mb: 16_000, file_system: "nfs4".into(), ..good };
        assert_eq!(problems(&bad, &input).len(), 3);
    }
}
