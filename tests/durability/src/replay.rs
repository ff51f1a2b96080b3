//! A disk that keeps only what was synced: it takes in the log of a program's calls, and at any moment makes the
//! directory as a power cut could have left it.
//!
//! Durable is what `fsync` or `fdatasync` of a file had to write before it returned, and what `fsync` of a directory
//! had to. Of all else any part may be there: written bytes by write or by sector of 512 bytes, new sizes with or
//! without the bytes, names with or without what they name. A rename is one change, also from one directory to another, and the sync of
//! either makes both ends of it durable; the sync of a file does not make its name durable. Real file systems promise
//! more than that, and not all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::DirBuilder;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use crate::dice::Dice;
use crate::shim::{Log, Op};

const SECTOR: u64 = 512;

/// Which of the changes that no sync has made durable are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kept {
    /// None.
    None,
    /// All, as after a kill.
    All,
    /// All up to some moment.
    Prefix,
    /// Each or not, by chance; sizes too.
    Some,
    /// Each sector of each write or not, by chance; sizes and names too.
    Torn,
    /// All names, and no bytes.
    Names,
    /// All bytes, and no names.
    Bytes,
}

impl Kept {
    /// Every kind.
    pub const EACH: [Self; 7] =
        [Self::None, Self::All, Self::Prefix, Self::Some, Self::Torn, Self::Names, Self::Bytes];
}

/// Syncs that a faulty disk or program leaves out; a planted bug, to see that a harness finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ignored {
    /// None.
    #[default]
    Nothing,
    /// `fdatasync`.
    Data,
    /// `fsync` of files.
    Files,
    /// `fsync` of directories.
    Directories,
}

/// A change of a file's bytes.
#[derive(Debug, Clone)]
enum Change {
    Write { at: u64, data: Range<usize> },
    Size(u64),
    AtLeast(u64),
}

/// A change of a directory's names.
#[derive(Debug, Clone)]
enum Naming {
    Add(String, usize),
    Remove(String),
    Move { from: String, to: String, node: usize },
}

type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone)]
enum Node {
    File { durable: Vec<u8>, changes: Vec<(usize, Change)> },
    Dir { mode: u32, modes: Vec<(usize, u32)>, names: Names, now: Names, changes: Vec<(usize, Naming)> },
}

fn new_dir(mode: u32) -> Node {
    Node::Dir { mode, modes: Vec::new(), names: Names::new(), now: Names::new(), changes: Vec::new() }
}

/// The disk at one moment of a log.
#[derive(Debug, Clone)]
pub struct Replay<'a> {
    log: &'a Log,
    ignored: Ignored,
    /// The next operation.
    at: usize,
    nodes: Vec<Node>,
    by_ino: HashMap<u64, usize>,
    /// The two directories of each rename from one to another, by operation.
    moves: BTreeMap<usize, [usize; 2]>,
    /// The node and the operation of each sync that goes on.
    syncs: HashMap<u64, (usize, usize)>,
}

/// What lay below the root before the log begins, all of it durable.
#[derive(Debug, Clone, Default)]
pub struct Before(Vec<(String, u64, Option<Vec<u8>>)>);

impl Before {
    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        fn walk(root: &Path, path: &str, found: &mut Before) -> io::Result<()> {
            let mut inner: Vec<_> = std::fs::read_dir(root.join(path))?.collect::<Result<_, _>>()?;
            inner.sort_by_key(std::fs::DirEntry::file_name);
            for entry in inner {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                let meta = entry.metadata()?;
                if meta.is_dir() {
                    found.0.push((path.clone(), meta.ino(), None));
                    walk(root, &path, found)?;
                } else {
                    found.0.push((path, meta.ino(), Some(std::fs::read(entry.path())?)));
                }
            }
            Ok(())
        }
        let mut found = Self::default();
        walk(root, "", &mut found)?;
        Ok(found)
    }
}

const ROOT: usize = 0;

impl<'a> Replay<'a> {
    /// The disk before the log.
    pub fn new(log: &'a Log, before: &Before, ignored: Ignored) -> Self {
        let (by_ino, moves, syncs) = Default::default();
        let mut replay = Self { log, ignored, at: 0, nodes: vec![new_dir(0o700)], by_ino, moves, syncs };
        for (path, ino, bytes) in &before.0 {
            let node = bytes.as_ref().map_or_else(
                || new_dir(0o700),
                |bytes| Node::File { durable: bytes.clone(), changes: Vec::new() },
            );
            let node = replay.add(*ino, node);
            let (dir, name) = replay.split(path);
            let Node::Dir { names, now, .. } = &mut replay.nodes[dir] else {
                unreachable!("a directory has it")
            };
            names.insert(name.clone(), node);
            now.insert(name, node);
        }
        replay
    }

    /// How many operations it has taken in.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Takes in the operations before `to`.
    pub fn advance(&mut self, to: usize) {
        while self.at < to {
            self.take(&self.log.ops[self.at]);
            self.at += 1;
        }
    }

    fn add(&mut self, ino: u64, node: Node) -> usize {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.by_ino.insert(ino, number);
        number
    }

    fn take(&mut self, op: &Op) {
        match op {
            Op::Life { ino } => {
                self.by_ino.insert(*ino, ROOT);
                self.syncs.clear();
            }
            Op::Open { ino, path, created, truncated } => {
                if *created {
                    let node = self.add(*ino, Node::File { durable: Vec::new(), changes: Vec::new() });
                    self.name(path, Some(node));
                } else if *truncated {
                    self.change(*ino, Change::Size(0));
                }
            }
            Op::Write { ino, at, data } => self.change(*ino, Change::Write { at: *at, data: data.clone() }),
            Op::Truncate { ino, size } => self.change(*ino, Change::Size(*size)),
            Op::Extend { ino, size } => self.change(*ino, Change::AtLeast(*size)),
            Op::SyncStart { ino, id } => {
                let node = self.by_ino[ino];
                self.syncs.insert(*id, (node, self.at));
            }
            Op::SyncEnd { id, data_only } => {
                let (node, began) = self.syncs.remove(id).expect("a sync that ends has begun");
                self.synced(node, began, *data_only);
            }
            Op::Rename { from, to } => {
                let node = self.find(from).expect("what is renamed is there");
                let ((from_dir, from), (to_dir, to)) = (self.split(from), self.split(to));
                if from_dir == to_dir {
                    self.naming(from_dir, Naming::Move { from, to, node });
                } else {
                    self.moves.insert(self.at, [from_dir, to_dir]);
                    self.naming(to_dir, Naming::Add(to, node));
                    self.naming(from_dir, Naming::Remove(from));
                }
            }
            Op::Link { from, to } => {
                let node = self.find(from).expect("what gets a second name is there");
                self.name(to, Some(node));
            }
            Op::Remove { path } => self.name(path, None),
            Op::MakeDir { ino, path, mode } => {
                let node = self.add(*ino, new_dir(*mode));
                self.name(path, Some(node));
            }
            Op::Mode { path, mode } => {
                let at = self.at;
                if let Some(node) = self.find(path)
                    && let Node::Dir { modes, .. } = &mut self.nodes[node]
                {
                    modes.push((at, *mode));
                }
            }
            Op::Unsupported { what } => panic!("the program did what cannot be replayed: {what}"),
            Op::Said { .. } | Op::Fault { .. } | Op::WriteBack | Op::Count { .. } => {}
        }
    }

    /// The directory a path is in, and its name there.
    fn split(&self, path: &str) -> (usize, String) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(dir).expect("the directory of a path is there"), name.to_owned())
    }

    fn find(&self, path: &str) -> Option<usize> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |dir, name| match &self.nodes[dir] {
            Node::Dir { now, .. } => now.get(name).copied(),
            Node::File { .. } => None,
        })
    }

    fn name(&mut self, path: &str, node: Option<usize>) {
        let (dir, name) = self.split(path);
        self.naming(dir, node.map_or(Naming::Remove(name.clone()), |node| Naming::Add(name, node)));
    }

    fn naming(&mut self, dir: usize, change: Naming) {
        let at = self.at;
        if let Node::Dir { now, changes, .. } = &mut self.nodes[dir] {
            rename(now, &change);
            changes.push((at, change));
        }
    }

    fn change(&mut self, ino: u64, change: Change) {
        let at = self.at;
        let node = *self.by_ino.get(&ino).expect("a file that is written to was opened");
        if let Node::File { changes, .. } = &mut self.nodes[node] {
            changes.push((at, change));
        }
    }

    fn synced(&mut self, node: usize, began: usize, data_only: bool) {
        let bytes = &self.log.bytes;
        match &mut self.nodes[node] {
            Node::File { durable, changes } => {
                if self.ignored == if data_only { Ignored::Data } else { Ignored::Files } {
                    return;
                }
                let after = changes.split_off(changes.partition_point(|(at, _)| *at < began));
                for (_, change) in std::mem::replace(changes, after) {
                    apply(durable, &change, bytes);
                }
            }
            Node::Dir { mode, modes, names, changes, .. } => {
                if self.ignored == Ignored::Directories {
                    return;
                }
                let after = changes.split_off(changes.partition_point(|(at, _)| *at < began));
                let settled = std::mem::replace(changes, after);
                for (_, change) in &settled {
                    rename(names, change);
                }
                let after = modes.split_off(modes.partition_point(|(at, _)| *at < began));
                for (_, new) in std::mem::replace(modes, after) {
                    *mode = new;
                }
                for (at, _) in settled {
                    for other in self.moves.get(&at).into_iter().flatten().filter(|other| **other != node) {
                        other_end(&mut self.nodes[*other], at);
                    }
                }
            }
        }
    }

    /// What a file holds for those who run: all of it, durable or not.
    pub fn now(&self, path: &str) -> Option<Vec<u8>> {
        match &self.nodes[self.find(path)?] {
            Node::File { durable, changes } => {
                let mut bytes = durable.clone();
                for (_, change) in changes {
                    apply(&mut bytes, change, &self.log.bytes);
                }
                Some(bytes)
            }
            Node::Dir { .. } => None,
        }
    }

    /// Makes what a power cut could leave of `path`, in a directory that is not there yet. Returns whether even `path`
    /// itself is there, and how many changes that nothing had made durable were taken and how many left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn image(&self, path: &str, kept: Kept, dice: &mut Dice, to: &Path) -> io::Result<Image> {
        let mut pending = BTreeSet::new();
        for node in &self.nodes {
            match node {
                Node::File { changes, .. } => pending.extend(changes.iter().map(|(at, _)| *at)),
                Node::Dir { changes, .. } => pending.extend(changes.iter().map(|(at, _)| *at)),
            }
        }
        let first = pending.first().copied().unwrap_or(self.at);
        let until = first + dice.index(self.at - first + 1);
        let mut image = Image::default();
        let moved = BTreeMap::new();
        let mut maker = Maker { replay: self, kept, until, dice, moved, image: &mut image };
        let mut dir = ROOT;
        for name in path.split('/') {
            let names = maker.names(dir);
            match names.get(name) {
                Some(node) => dir = *node,
                None => return Ok(image),
            }
        }
        maker.write(dir, to)?;
        image.is_there = true;
        Ok(image)
    }
}

/// What making an image came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Image {
    /// Whether there is anything.
    pub is_there: bool,
    /// Changes that were not durable and are there.
    pub taken: u64,
    /// Changes that were not durable and are not.
    pub left: u64,
}

struct Maker<'a, 'b> {
    replay: &'b Replay<'a>,
    kept: Kept,
    /// Where a prefix ends.
    until: usize,
    dice: &'b mut Dice,
    /// What was decided on each rename from one directory to another, by operation.
    moved: BTreeMap<usize, bool>,
    image: &'b mut Image,
}

impl Maker<'_, '_> {
    fn keeps(&mut self, at: usize, is_name: bool) -> bool {
        let keeps = match self.kept {
            Kept::None => false,
            Kept::All => true,
            Kept::Prefix => at < self.until,
            Kept::Some | Kept::Torn => self.dice.percent(50),
            Kept::Names => is_name,
            Kept::Bytes => !is_name,
        };
        *(if keeps { &mut self.image.taken } else { &mut self.image.left }) += 1;
        keeps
    }

    fn names(&mut self, dir: usize) -> Names {
        let Node::Dir { names, changes, .. } = &self.replay.nodes[dir] else { return Names::new() };
        let mut names = names.clone();
        for (at, change) in changes {
            let keeps = match self.moved.get(at) {
                Some(keeps) => *keeps,
                None => self.keeps(*at, true),
            };
            if self.replay.moves.contains_key(at) {
                self.moved.insert(*at, keeps);
            }
            if keeps {
                rename(&mut names, change);
            }
        }
        names
    }

    fn bytes(&mut self, durable: &[u8], changes: &[(usize, Change)]) -> Vec<u8> {
        let log = &self.replay.log.bytes;
        let mut bytes = durable.to_vec();
        let mut size = bytes.len();
        for (at, change) in changes {
            match change {
                Change::Write { at: from, data } if self.kept == Kept::Torn => {
                    for (from, part) in sectors(*from, data.clone()) {
                        if self.keeps(*at, false) {
                            apply(&mut bytes, &Change::Write { at: from, data: part }, log);
                        }
                    }
                }
                _ => {
                    if self.keeps(*at, false) {
                        apply(&mut bytes, change, log);
                    }
                }
            }
            if let Change::Write { at, data } = change {
                size = size.max(usize::try_from(*at).expect("files are small") + data.len());
            }
        }
        // The size is not written together with the bytes.
        if matches!(self.kept, Kept::Some | Kept::Torn) {
            match self.dice.below(4) {
                0 => bytes.truncate(durable.len()),
                1 if size > bytes.len() => bytes.resize(size, 0),
                _ => {}
            }
        }
        bytes
    }

    fn write(&mut self, node: usize, to: &Path) -> io::Result<()> {
        match &self.replay.nodes[node] {
            Node::File { durable, changes } => {
                let bytes = self.bytes(durable, changes);
                std::fs::write(to, bytes)
            }
            Node::Dir { mode, modes, .. } => {
                let mut mode = *mode;
                for (at, new) in modes {
                    if self.keeps(*at, false) {
                        mode = *new;
                    }
                }
                DirBuilder::new().mode(mode).create(to)?;
                for (name, node) in self.names(node) {
                    self.write(node, &to.join(name))?;
                }
                Ok(())
            }
        }
    }
}

/// A write, cut at the sectors of its file.
fn sectors(mut from: u64, mut data: Range<usize>) -> Vec<(u64, Range<usize>)> {
    let mut parts = Vec::new();
    while !data.is_empty() {
        let room = usize::try_from(SECTOR - from % SECTOR).expect("a sector is small");
        let end = data.end.min(data.start + room);
        parts.push((from, data.start..end));
        from += (end - data.start) as u64;
        data.start = end;
    }
    parts
}

fn apply(bytes: &mut Vec<u8>, change: &Change, log: &[u8]) {
    let index = |at: u64| usize::try_from(at).expect("files are small");
    match change {
        Change::Write { at, data } => {
            let end = index(*at) + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[index(*at)..end].copy_from_slice(&log[data.clone()]);
        }
        Change::Size(size) => bytes.resize(index(*size), 0),
        Change::AtLeast(size) => bytes.resize(index(*size).max(bytes.len()), 0),
    }
}

/// Makes the end of a rename durable that lies in this directory, with what was done to that name before.
fn other_end(node: &mut Node, moved: usize) {
    let Node::Dir { names, changes, .. } = node else { return };
    let Some(end) = changes.iter().position(|(at, _)| *at == moved) else { return };
    let is_name = |change: &Naming, wanted: &str| match change {
        Naming::Add(name, _) | Naming::Remove(name) => name == wanted,
        Naming::Move { from, to, .. } => from == wanted || to == wanted,
    };
    let (Naming::Add(wanted, _) | Naming::Remove(wanted) | Naming::Move { to: wanted, .. }) = &changes[end].1;
    let wanted = wanted.clone();
    let mut left = Vec::new();
    for (number, (at, change)) in std::mem::take(changes).into_iter().enumerate() {
        if number <= end && is_name(&change, &wanted) {
            rename(names, &change);
        } else {
            left.push((at, change));
        }
    }
    *changes = left;
}

fn rename(names: &mut Names, change: &Naming) {
    match change {
        Naming::Add(name, node) => drop(names.insert(name.clone(), *node)),
        Naming::Remove(name) => drop(names.remove(name)),
        Naming::Move { from, to, node } => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}
