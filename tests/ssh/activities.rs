//! Host activities over ssh with this machine's own `curl`, `tar` and coreutils, in a directory that stands for the
//! machine: a wrapper on the far side puts it before every absolute path, and no owner is changed.

use std::path::Path;
use std::sync::Arc;

use dssflow_activities::host::kit::{Kit, KitInput};
use dssflow_activities::host::limits::{Limits, LimitsInput};
use dssflow_activities::host::unpack::{Unpack, UnpackInput};
use dssflow_activities::host::{Host, HostHandle, SshHost, SshTarget};
use dssflow_engine::activity::{Activity as _, ErrorClass, Owner, Probe, Resources, Undo};

use crate::context::{Ledger, context};
use crate::sshd::Sshd;
use crate::web::{Answer, Web};

/// `sh MAP ROOT --user USER -- ARGV...`
const MAP: &str = "root=$1; shift 4; PATH=$root/shims:$PATH\nexport PATH\nn=$#\n\
    while [ $n -gt 0 ]; do a=$1; shift; case $a in /*) a=$root$a;; esac; set -- \"$@\" \"$a\"; n=$((n - 1)); done\nexec \"$@\"\n";

struct Lab {
    sshd: Sshd,
    host: SshHost,
}

impl Lab {
    fn new() -> Option<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let sshd = Sshd::start()?;
        let root = sshd.dir().join("root");
        std::fs::create_dir_all(root.join("shims")).expect("a directory of ours");
        let chown = root.join("shims/chown");
        std::fs::write(&chown, "#!/bin/sh\nexit 0\n").expect("a file of ours");
        std::fs::set_permissions(&chown, std::fs::Permissions::from_mode(0o755)).expect("ours");
        let map = sshd.dir().join("map");
        std::fs::write(&map, MAP).expect("a file of ours");
        let words = ["/bin/sh".to_owned(), map.display().to_string(), root.display().to_string()];
        let target = SshTarget {
            host: "box".into(),
            config_file: Some(sshd.config("config", sshd.port(), "")),
            wrapper: words.to_vec(),
            ..SshTarget::default()
        };
        Some(Self { host: SshHost::new(target).expect("a good target"), sshd })
    }

    fn step(&self, name: &str) -> (dssflow_engine::activity::ActivityContext, Arc<Ledger>) {
        let mut resources = Resources::default();
        resources.insert(HostHandle(Arc::new(self.host.clone()) as Arc<dyn Host>));
        context(name, resources)
    }

    fn file(&self, path: &str) -> std::path::PathBuf {
        self.sshd.dir().join("root").join(path.trim_start_matches('/'))
    }

    /// Files below a directory of the machine.
    fn below(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.file(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn sha256(file: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(file).output().expect("sha256sum");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a hash").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kit_is_downloaded_in_pieces_checked_and_unpacked() {
    let Some(lab) = Lab::new() else { return };
    if !Path::new("/usr/bin/curl").exists() {
        eprintln!("skipped: there is no curl on this machine");
        return;
    }
    // A kit of some size that does not compress.
    let kit = lab.sshd.dir().join("kit/dataiku-dss-1.2.3");
    std::fs::create_dir_all(&kit).expect("a directory of ours");
    std::fs::write(kit.join("dss-version.json"), "{\"product_version\": \"1.2.3\"}").expect("ours");
    let mut chance = dssflow_tests::chance::Chance::new(7);
    let noise: Vec<u8> = (0..400_000).map(|_| u8::try_from(chance.below(256)).expect("a byte")).collect();
    std::fs::write(kit.join("noise"), noise).expect("ours");
    let archive = lab.sshd.dir().join("kit.tar.gz");
    let packed = std::process::Command::new("tar")
        .arg("czf")
        .arg(&archive)
        .arg("-C")
        .arg(lab.sshd.dir().join("kit"))
        .arg("dataiku-dss-1.2.3")
        .status();
    assert!(packed.expect("tar").success());
    let bytes = std::fs::read(&archive).expect("packed");
    // The first two answers break off.
    let sent = bytes.clone();
    let web = Web::serve(move |asked, number| {
        let mut body = sent.clone();
        if asked.line.contains("wrong") {
            body[1000] ^= 1;
        }
        Answer { body, cut: (number <= 2).then_some(100_000) }
    })
    .await;
    let input = KitInput {
        url: format!("http://127.0.0.1:{}/dataiku-dss-1.2.3.tar.gz?signature=secret", web.port),
        sha256: sha256(&archive),
        directory: "/data/kits".into(),
        user: "dssuser".into(),
    };
    let (ctx, ledger) = lab.step("kit-dss");
    for attempt in 0..2 {
        let error = Kit.execute(&ctx, &input).await.expect_err("the connection was cut");
        assert!(matches!(error.class, ErrorClass::Retryable), "attempt {attempt}: {error:?}");
        assert!(matches!(Kit.probe(&ctx, &input).await.expect("looked"), Probe::Absent));
        assert_eq!(lab.below("/data/kits"), ["dataiku-dss-1.2.3.tar.gz.part"]);
    }
    let output = Kit.execute(&ctx, &input).await.expect("the rest of it");
    assert_eq!(output.path, "/data/kits/dataiku-dss-1.2.3.tar.gz");
    assert_eq!(std::fs::read(lab.file(&output.path)).expect("there"), bytes);
    let ranges: Vec<String> = web
        .asked()
        .iter()
        .flat_map(|a| a.headers.iter().filter(|h| h.starts_with("range")).cloned())
        .collect();
    assert_eq!(ranges, ["range: bytes=100000-", "range: bytes=200000-"]);
    assert_eq!(lab.below("/data/kits"), ["dataiku-dss-1.2.3.tar.gz"]);
    let found = Kit.probe(&ctx, &input).await.expect("looked");
    assert!(matches!(found, Probe::Present { owner: Owner::ThisRun, .. }), "{found:?}");
    let before = web.asked().len();
    Kit.execute(&ctx, &input).await.expect("again");
    assert_eq!(web.asked().len(), before, "what is there is not loaded again");

    // Another content than the site says: tried once from the start, then removed.
    let wrong = KitInput { url: input.url.replace("1.2.3.tar", "wrong.tar"), ..input.clone() };
    let error = Kit.execute(&lab.step("kit-wrong").0, &wrong).await.expect_err("another hash");
    assert_eq!((error.code.as_str(), error.class), ("ChecksumMismatch", ErrorClass::Terminal));
    assert_eq!(lab.below("/data/kits"), ["dataiku-dss-1.2.3.tar.gz"]);

    let unpack = UnpackInput {
        archive: output.path.clone(),
        sha256: input.sha256.clone(),
        parent: "/opt/dataiku".into(),
        directory: "dataiku-dss-1.2.3".into(),
        version: "1.2.3".into(),
        user: "dssuser".into(),
    };
    let (unpack_ctx, unpack_ledger) = lab.step("unpack");
    let unpacked = Unpack.execute(&unpack_ctx, &unpack).await.expect("a good kit");
    assert_eq!(
        std::fs::metadata(lab.file(&unpacked.install_dir).join("noise")).expect("there").len(),
        400_000
    );
    assert_eq!(lab.below("/var/lib/dssflow").iter().filter(|n| n.starts_with("unpack.")).count(), 1);

    // And back.
    let recorded = unpack_ledger.recorded.lock().expect("no panic inside").clone();
    assert!(matches!(
        Unpack.compensate(&unpack_ctx, &unpack, &recorded).await.expect("undone"),
        Undo::Undone
    ));
    let recorded = ledger.recorded.lock().expect("no panic inside").clone();
    assert!(matches!(Kit.compensate(&ctx, &input, &recorded).await.expect("undone"), Undo::Undone));
    assert_eq!(lab.below("/data/kits"), Vec::<String>::new());
    assert_eq!(lab.below("/opt"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_written_marked_and_taken_back() {
    let Some(lab) = Lab::new() else { return };
    std::fs::create_dir_all(lab.file("/etc/security/limits.d")).expect("ours");
    let input = LimitsInput { user: "dssuser".into(), open_files: 65_536, processes: 65_536 };
    let (ctx, ledger) = lab.step("limits");
    assert!(matches!(Limits.probe(&ctx, &input).await.expect("looked"), Probe::Absent));
    Limits.execute(&ctx, &input).await.expect("written");
    let found = Limits.probe(&ctx, &input).await.expect("looked");
    assert!(matches!(found, Probe::Present { owner: Owner::ThisRun, .. }));
    // The marker is the last thing a step writes, and of its input alone.
    let other = LimitsInput { open_files: 70_000, ..input.clone() };
    assert!(matches!(Limits.probe(&ctx, &other).await.expect("looked"), Probe::Absent));
    assert_eq!(lab.below("/etc/security/limits.d").len(), 1);
    let recorded = ledger.recorded.lock().expect("no panic inside").clone();
    assert!(matches!(Limits.compensate(&ctx, &input, &recorded).await.expect("undone"), Undo::Undone));
    assert_eq!(lab.below("/etc/security/limits.d"), Vec::<String>::new());
    assert_eq!(lab.below("/var/lib/dssflow"), Vec::<String>::new());
}
