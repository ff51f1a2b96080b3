//! Several commands at once on one store, and owners that are stopped or killed. One process owns the store; the others
//! are answered through its socket, or told who owns it, soon. Nobody ever breaks the lock of a process that lives.
//!
//! `DSSFLOW_RACES` is how many races there are. An owner is made without a world: its AWS takes the call and never answers.

use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::seed;
use crate::support::{EXAMPLE, Home, Ran};

/// The promise.
const SOON: Duration = Duration::from_secs(1);
/// What a machine under load is given.
const AT_LAST: Duration = Duration::from_secs(5);
/// How long an owner may take to have its socket.
const PATIENCE: Duration = Duration::from_mins(1);

const DRIVE: &[&str] = &["run", "bootstrap", "--yes"];
/// What each says of the run that is in the store.
const LOOKS: &[(&[&str], &str)] = &[
    (&["runs", "ls", "-o", "name"], "seen\n"),
    (&["runs", "get", "seen", "-o", "json"], "\"run\": \"seen\""),
    (&["why", "seen"], "try another"),
    (&["store", "info", "-o", "json"], "\"failed\": 1"),
    (&["cancel", "seen"], "nothing to cancel"),
    (&["pause", "seen"], "nothing to do"),
    (&["store", "verify"], "1 run"),
];

/// A store with a run in it, and an AWS that never answers.
struct Ring {
    home: Home,
    _aws: TcpListener,
}

impl Ring {
    fn new() -> Self {
        let home = Home::fleeting();
        std::fs::create_dir_all(home.store().parent().unwrap()).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(seed(&home.store(), "seen"));
        // The system takes connections for it; nobody reads them.
        let aws = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint =
            format!("region: eu-west-1\naws:\n  endpoint_url: http://{}\n", aws.local_addr().unwrap());
        home.write("site.yaml", &EXAMPLE.replacen("region: eu-west-1\n", &endpoint, 1));
        Self { home, _aws: aws }
    }

    fn spawn(&self, args: &[&str]) -> Process {
        let mut command = self.home.command(args);
        // A store whose owner was killed is opened as a copy first.
        command.env("TMPDIR", self.home.dir.path());
        command.env("AWS_ACCESS_KEY_ID", "nobody").env("AWS_SECRET_ACCESS_KEY", "nothing");
        let begin = Instant::now();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Process { child: Some(child), begin, args: args.iter().map(|arg| (*arg).to_owned()).collect() }
    }

    fn does(&self, args: &[&str]) -> (Ran, Duration) {
        self.spawn(args).end()
    }

    /// Starts a process that owns the store for good, and waits until it can be asked.
    fn owner(&self) -> Process {
        let mut owner = self.spawn(DRIVE);
        let begin = Instant::now();
        while self.holder() != Some(owner.pid()) {
            assert!(owner.is_alive() && begin.elapsed() < PATIENCE, "no owner: {:?}", owner.end());
        }
        owner
    }

    /// Who owns the store, as asked there.
    fn holder(&self) -> Option<u32> {
        self.info()["holder"]["pid"].as_u64().map(|pid| u32::try_from(pid).unwrap())
    }

    fn info(&self) -> Value {
        let (ran, _) = self.does(&["store", "info", "-o", "json"]);
        serde_json::from_str(&ran.out).unwrap_or_default()
    }
}

/// A command that is at work; it does not outlive the test.
struct Process {
    child: Option<Child>,
    begin: Instant,
    args: Vec<String>,
}

impl Process {
    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn is_alive(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Waits for its end; what it said, and how long it took.
    fn end(&mut self) -> (Ran, Duration) {
        let ran = Ran::from(self.child.take().unwrap().wait_with_output().unwrap());
        (ran, self.begin.elapsed())
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop((child.kill(), child.wait()));
        }
    }
}

/// What a refusal does not tell of all there is to tell: which process, where, in which state, since when.
fn untold(ran: &Ran, pids: &[u32], states: &[&str]) -> Option<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let Some(named) = pids.iter().find(|pid| ran.err.contains(&format!("process {pid} on {host} ("))) else {
        return Some(format!("none of {pids:?} on {host} in {}", ran.err));
    };
    let told = ran.exit == 8
        && ran.err.contains("error[DF0010]")
        && ran.err.contains(", since 2")
        && states.iter().any(|state| ran.err.contains(&format!("process {named} is {state}")));
    (!told).then(|| format!("{ran:?}"))
}

/// What the races came to.
#[derive(Debug, Default)]
struct Sums {
    refused: u32,
    answered: u32,
    without_owner: u32,
    late: u32,
    longest: Duration,
    longest_refusal: Duration,
    violations: Vec<String>,
}

impl Sums {
    /// Something that must never be.
    fn wrong(&mut self, round: usize, what: &str) {
        self.violations.push(format!("round {round}: {what}"));
    }
}

/// Four processes at once; then the owner is killed, and the store is free.
fn race(ring: &Ring, round: usize, sums: &mut Sums) {
    let drivers = 1 + round % 4;
    let looks: Vec<_> = (0..4 - drivers).map(|n| &LOOKS[(round + n * 3) % LOOKS.len()]).collect();
    let mut racing: Vec<Process> = Vec::new();
    for n in 0..4 {
        // Who is first is another kind each time.
        let place = (n + round / 4) % 4;
        let args = if place < drivers { DRIVE } else { looks[place - drivers].0 };
        racing.push(ring.spawn(args));
    }
    let pids: Vec<u32> = racing.iter().map(Process::pid).collect();
    // Each is waited for at once, so that its time is its own.
    let begin = Instant::now();
    let mut ended = Vec::new();
    let mut drive: Vec<Process> = Vec::new();
    while ended.len() < 3 || !drive.is_empty() {
        for mut process in std::mem::take(&mut racing) {
            if process.is_alive() {
                drive.push(process);
            } else {
                ended.push((process.args.clone(), process.end()));
            }
        }
        let all_drive = drive.iter().all(|process| process.args[0] == "run");
        if drive.len() == 1 && all_drive && ended.len() == 3 {
            break;
        }
        if begin.elapsed() > AT_LAST {
            let still: Vec<_> = drive.iter().map(|process| (&process.args, process.pid())).collect();
            let note = std::fs::read_to_string(ring.home.store().join("lock"));
            panic!("round {round}: still at work: {still:?}; the lock says {note:?}; ended: {ended:?}");
        }
        racing = std::mem::take(&mut drive);
        std::thread::sleep(Duration::from_millis(2));
    }
    for (args, (ran, took)) in &ended {
        sums.longest = sums.longest.max(*took);
        sums.late += u32::from(*took > SOON);
        if *took >= AT_LAST {
            sums.wrong(round, &format!("{args:?} took {took:?}"));
        }
        if ran.exit == 8 {
            sums.refused += 1;
            sums.longest_refusal = sums.longest_refusal.max(*took);
            // Who held it for a moment may have gone since.
            if let Some(what) = untold(ran, &pids, &["running", "not to be seen from here"]) {
                sums.wrong(round, &what);
            }
        } else {
            sums.answered += 1;
            let right = looks.iter().find(|(look, _)| look == args).is_some_and(|(_, answer)| {
                ran.exit == 0 && (ran.out.contains(answer) || ran.err.contains(answer))
            });
            if !right {
                sums.wrong(round, &format!("{args:?} {ran:?}"));
            }
        }
    }
    let Some(owner) = drive.pop() else {
        sums.without_owner += 1;
        return;
    };
    // It may not have its socket yet when there was nobody to wait for it.
    let begin = Instant::now();
    while ring.holder() != Some(owner.pid()) {
        assert!(begin.elapsed() < PATIENCE, "round {round}: who drives owns the store");
    }
    owner.kill();
    let (ran, took) = ring.does(&["runs", "ls", "-o", "name"]);
    if (ran.exit, ran.out.as_str()) != (0, "seen\n") {
        sums.wrong(round, &format!("after the owner was killed: {ran:?}"));
    }
    sums.longest = sums.longest.max(took);
}

#[test]
fn of_four_at_once_one_owns_the_store_and_the_others_are_answered_or_told() {
    let begin = Instant::now();
    let rounds = std::env::var("DSSFLOW_RACES").map_or(20, |text| text.parse().unwrap());
    let ring = Ring::new();
    let mut sums = Sums::default();
    for round in 0..rounds {
        race(&ring, round, &mut sums);
    }
    println!(
        "races: cases={rounds} faults_fired={} answered={} refused={} without_owner={} longest_ms={} \
         longest_refusal_ms={} over_a_second={} violations={} seed=none seconds={:.1}",
        rounds - sums.without_owner as usize,
        sums.answered,
        sums.refused,
        sums.without_owner,
        sums.longest.as_millis(),
        sums.longest_refusal.as_millis(),
        sums.late,
        sums.violations.len(),
        begin.elapsed().as_secs_f64()
    );
    assert_eq!(sums.violations, Vec::<String>::new());
    assert!(sums.answered as usize >= rounds / 2 && sums.refused as usize >= rounds / 2, "{sums:?}");
    assert!(sums.without_owner as usize * 10 <= rounds, "{sums:?}");
}

#[test]
fn a_stopped_owner_still_owns_and_is_named_as_stopped() {
    let ring = Ring::new();
    let mut owner = ring.owner();
    let epoch = ring.info()["epoch"].clone();
    owner.send(Signal::STOP);
    let mut longest = Duration::ZERO;
    for args in [DRIVE, &["resume", "seen"], &["rollback", "seen", "--yes"]]
        .into_iter()
        .chain(LOOKS.iter().map(|(args, _)| *args))
    {
        let (ran, took) = ring.does(args);
        assert_eq!(untold(&ran, &[owner.pid()], &["stopped"]), None, "{args:?}");
        assert!(ran.err.contains(&format!("kill -CONT {}", owner.pid())), "{args:?} {}", ran.err);
        assert!(took < AT_LAST, "{args:?} took {took:?}");
        longest = longest.max(took);
    }
    println!("a stopped owner: refusals={} longest_ms={}", LOOKS.len() + 3, longest.as_millis());

    owner.send(Signal::CONT);
    let begin = Instant::now();
    while ring.holder() != Some(owner.pid()) {
        assert!(begin.elapsed() < PATIENCE, "it goes on");
    }
    assert!(owner.is_alive());
    assert_eq!(ring.info()["epoch"], epoch, "nobody else has owned the store meanwhile");
    assert_eq!(ring.does(&["runs", "ls", "-o", "name"]).0.out, "seen\n", "through the owner's socket");

    // Even stopped it lets go when it is killed, at once.
    owner.send(Signal::STOP);
    owner.kill();
    let (ran, took) = ring.does(&["runs", "ls", "-o", "name"]);
    assert_eq!((ran.exit, ran.out.as_str()), (0, "seen\n"), "{ran:?}");
    assert!(took < AT_LAST, "{took:?}");
}
