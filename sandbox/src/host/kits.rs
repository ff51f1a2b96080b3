//! The archives a bootstrap downloads, small and with the real layout.
//!
//! The scripts in them are real files that say what they are; running them goes to the stubs of the same name.
//! Archives are the same bytes every time, so that their checksums are stable.

use std::io;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::zip;

/// Spark in the name of the Spark archive.
pub const SPARK_VERSION: &str = "3.5.3";
/// Version of the kubectl stub.
pub const KUBECTL_VERSION: &str = "1.33.1";
/// Version of the eksctl stub.
pub const EKSCTL_VERSION: &str = "0.215.0";
/// Version of the aws-iam-authenticator stub.
pub const AUTHENTICATOR_VERSION: &str = "0.7.2";
/// Version of the aws stub.
pub const AWS_CLI_VERSION: &str = "2.31.0";
/// Version of the Athena driver.
pub const ATHENA_JDBC_VERSION: &str = "3.6.0";

/// One file to download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kit {
    /// File name below the kits directory.
    pub file: String,
    /// Where the kits server offers it.
    pub url: String,
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// All files to download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kits {
    /// DSS version they are for.
    pub version: String,
    /// `dataiku-dss-V.tar.gz`.
    pub dss: Kit,
    /// The standalone Hadoop libraries.
    pub hadoop: Kit,
    /// The standalone Spark.
    pub spark: Kit,
    /// The Athena JDBC driver, a zip with one jar.
    pub athena_jdbc: Kit,
    /// The `kubectl` program.
    pub kubectl: Kit,
    /// `eksctl` in a tar archive.
    pub eksctl: Kit,
    /// The `aws-iam-authenticator` program.
    pub aws_iam_authenticator: Kit,
    /// The installer of the aws command line, a zip.
    pub aws_cli: Kit,
    /// The repository file of Docker CE.
    pub docker_repo: Kit,
}

struct Tar(tar::Builder<GzEncoder<Vec<u8>>>);

impl Tar {
    fn new() -> Self {
        // `GzEncoder` writes no time, so the bytes are the same every time.
        Self(tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast())))
    }

    fn add(mut self, path: &str, mode: u32, text: &str) -> io::Result<Self> {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).expect("a length fits 64 bits"));
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        self.0.append_data(&mut header, path, text.as_bytes())?;
        Ok(self)
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        self.0.into_inner()?.finish()
    }
}

fn stub(what: &str) -> String {
    format!(
        "#!/bin/sh\n# {what}; stub of the dssflow sandbox\necho 'this is a stub of the dssflow sandbox' >&2\nexit 1\n"
    )
}

/// Writes all kits for one DSS version into `dir`; `base_url` is where that directory is served.
///
/// # Errors
/// When files cannot be written.
pub fn write(dir: &Path, base_url: &str, version: &str) -> io::Result<Kits> {
    std::fs::create_dir_all(dir)?;
    let put = |file: String, bytes: Vec<u8>| -> io::Result<Kit> {
        let temporary = dir.join(format!("{file}.new"));
        std::fs::write(&temporary, &bytes)?;
        std::fs::rename(temporary, dir.join(&file))?;
        Ok(Kit {
            url: format!("{}/{file}", base_url.trim_end_matches('/')),
            sha256: hex::encode(Sha256::digest(&bytes)),
            size: u64::try_from(bytes.len()).expect("a length fits 64 bits"),
            file,
        })
    };

    let top = format!("dataiku-dss-{version}");
    let dss_version = format!("{{\"product_version\": \"{version}\", \"product_commitid\": \"sandbox\"}}\n");
    let dss = Tar::new()
        .add(&format!("{top}/dss-version.json"), 0o644, &dss_version)?
        .add(&format!("{top}/installer.sh"), 0o755, &stub("installer.sh"))?
        .add(&format!("{top}/scripts/install/install-deps.sh"), 0o755, &stub("install-deps.sh"))?
        .add(&format!("{top}/scripts/install/install-boot.sh"), 0o755, &stub("install-boot.sh"))?
        .finish()?;
    let hadoop_top = "hadoop-standalone-libs-generic-hadoop3";
    let hadoop = Tar::new()
        .add(&format!("{hadoop_top}/README"), 0o644, "Hadoop libraries of the sandbox\n")?
        .finish()?;
    let spark = Tar::new()
        .add(
            &format!("spark-standalone-home-{SPARK_VERSION}/bin/spark-submit"),
            0o755,
            &stub("spark-submit"),
        )?
        .finish()?;
    let eksctl = Tar::new().add("eksctl", 0o755, &stub(&format!("eksctl {EKSCTL_VERSION}")))?.finish()?;
    let entry =
        |name: &str, mode, text: String| zip::Entry { name: name.to_owned(), mode, data: text.into_bytes() };
    let aws_cli = zip::write(&[
        entry("aws/install", 0o755, stub("aws installer")),
        entry("aws/dist/aws", 0o755, stub(&format!("aws {AWS_CLI_VERSION}"))),
    ]);
    let jar = format!("athena-jdbc-{ATHENA_JDBC_VERSION}-with-dependencies.jar");
    let athena = zip::write(&[entry(&jar, 0o644, "the Athena JDBC driver of the sandbox\n".to_owned())]);
    let repo = "[docker-ce-stable]\nname=Docker CE Stable - x86_64\nenabled=1\ngpgcheck=1\n";

    Ok(Kits {
        version: version.to_owned(),
        dss: put(format!("{top}.tar.gz"), dss)?,
        hadoop: put(format!("dataiku-dss-hadoop-standalone-libs-generic-hadoop3-{version}.tar.gz"), hadoop)?,
        spark: put(
            format!("dataiku-dss-spark-standalone-{version}-{SPARK_VERSION}-generic-hadoop3.tar.gz"),
            spark,
        )?,
        athena_jdbc: put(format!("athena-jdbc-{ATHENA_JDBC_VERSION}.zip"), athena)?,
        kubectl: put("kubectl".to_owned(), stub(&format!("kubectl {KUBECTL_VERSION}")).into_bytes())?,
        eksctl: put("eksctl_Linux_amd64.tar.gz".to_owned(), eksctl)?,
        aws_iam_authenticator: put(
            "aws-iam-authenticator_linux_amd64".to_owned(),
            stub(&format!("aws-iam-authenticator {AUTHENTICATOR_VERSION}")).into_bytes(),
        )?,
        aws_cli: put("awscli-exe-linux-x86_64.zip".to_owned(), aws_cli)?,
        docker_repo: put("docker-ce.repo".to_owned(), repo.as_bytes().to_vec())?,
    })
}
