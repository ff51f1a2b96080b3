//! The order of each group: the log of the tree is written and synced, then `HEAD` is written and synced, and only then
//! is anything of the group acknowledged.

use std::collections::BTreeMap;

use dssflow_durability::shim::{Log, Op};

use crate::recording::{engine, store};

/// A group made durable: when its first sync began, and when its last one had ended.
#[derive(Debug, Clone, Copy)]
struct Group {
    began: usize,
    ended: usize,
}

/// What a recording says of the order.
#[derive(Debug, Default)]
struct Order {
    groups: Vec<Group>,
    /// `fdatasync` calls on the tree's log.
    tree_syncs: u64,
    acks: u64,
    violations: Vec<String>,
}

/// The group's number in a slot of `HEAD`: behind the magic, the store's id and the version.
fn number(slot: &[u8]) -> u64 {
    u64::from_be_bytes(slot[41..49].try_into().unwrap())
}

fn order(log: &Log) -> Order {
    let mut order = Order::default();
    let mut paths: BTreeMap<u64, String> = BTreeMap::new();
    let mut syncs: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    let (mut last_tree_write, mut tree_synced) = (0, None);
    // The number of the group in `HEAD`, where it was written, and the sync of the tree before that.
    let mut head: Option<(u64, usize, usize)> = None;
    let mut last_number = 0;
    // For each writer or run: its last word, and how many it has said in this life.
    let mut said: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let (mut opened, mut groups_before) = (0, 0);
    for (at, op) in log.ops.iter().enumerate() {
        let mut wrong = |what: String| order.violations.push(format!("call {at}: {what}"));
        match op {
            Op::Life { .. } => {
                syncs.clear();
                said.clear();
                (tree_synced, head, groups_before) = (None, None, order.groups.len());
            }
            Op::Open { ino, path, .. } => drop(paths.insert(*ino, path.clone())),
            Op::Write { ino, .. } if paths[ino].ends_with("/db") => last_tree_write = at,
            Op::Write { ino, data, .. } if paths[ino] == "store/HEAD" => {
                let number = number(&log.bytes[data.clone()]);
                if head.is_some() {
                    wrong("HEAD is written again before it is synced".to_owned());
                }
                match tree_synced {
                    Some(began) if began > last_tree_write => head = Some((number, at, began)),
                    _ => wrong("HEAD is written before the tree is synced".to_owned()),
                }
                // Opening writes a number again that the life before had written to the tree only.
                if number != last_number + 1 && number != last_number {
                    wrong(format!("group {number} comes after group {last_number}"));
                }
                last_number = number;
            }
            Op::SyncStart { ino, id } => drop(syncs.insert(*id, (*ino, at))),
            Op::SyncEnd { id, data_only } => {
                let (ino, began) = syncs.remove(id).unwrap();
                let path = paths.get(&ino).map_or("", String::as_str);
                if path.ends_with("/db") && *data_only {
                    tree_synced = Some(began);
                    order.tree_syncs += 1;
                }
                if path == "store/HEAD"
                    && let Some((_, written, tree)) = head
                    && began > written
                {
                    order.groups.push(Group { began: tree, ended: at });
                    head = None;
                }
            }
            Op::Said { data } => {
                let text = String::from_utf8_lossy(&log.bytes[data.clone()]).into_owned();
                for line in text.lines() {
                    if line.starts_with("open ") {
                        opened = at;
                        if order.groups.len() == groups_before {
                            wrong("the epoch is in no group".to_owned());
                        }
                    }
                    let Some(run) = line.strip_prefix("ack ").and_then(|rest| rest.split(' ').next()) else {
                        continue;
                    };
                    order.acks += 1;
                    // A writer asks after its last word; an engine's words come later than the next request.
                    let (who, asks_later) = match run.split_once('-') {
                        Some((writer, _)) if writer.starts_with('w') => (writer, true),
                        _ => (run, false),
                    };
                    let (last, count) = said.get(who).copied().unwrap_or((opened, 0));
                    let since = order.groups[groups_before..].iter().rev();
                    let fits = if asks_later {
                        since.take_while(|group| group.ended > last).any(|group| group.began > last)
                    } else {
                        // One of them raised the epoch.
                        since.len() > count + 1
                    };
                    if !fits {
                        wrong(format!("{line:?} has no group of its own behind it"));
                    }
                    said.insert(who.to_owned(), (at, count + 1));
                }
            }
            _ => {}
        }
    }
    order
}

#[test]
fn each_acknowledgement_comes_after_the_tree_and_then_head_were_synced() {
    for recording in [store(), engine()] {
        let order = order(&recording.log);
        println!(
            "gate {}: groups={} tree_syncs={} acks={} violations={}",
            recording.name,
            order.groups.len(),
            order.tree_syncs,
            order.acks,
            order.violations.len()
        );
        assert!(order.violations.is_empty(), "{:?}", &order.violations[..order.violations.len().min(5)]);
        assert!(order.acks > 300, "{}", order.acks);
        assert!(order.tree_syncs >= order.groups.len() as u64, "a sync for each group");
        assert!(order.groups.is_sorted_by(|a, b| a.began < b.began), "each its own");
    }
}

#[test]
fn the_gate_sees_a_sync_that_is_left_out() {
    let log = &store().log;
    let after =
        |at: usize, is: &dyn Fn(&Op) -> bool| (at..log.ops.len()).find(|at| is(&log.ops[*at])).unwrap();
    let acks: Vec<usize> = (0..log.ops.len()).filter(|at| matches!(log.ops[*at], Op::Said { .. })).collect();
    let middle = acks[acks.len() / 4];
    let mut planted = 0;
    for nth in 0..4 {
        // The next syncs in turn are the tree's and that of HEAD; payload files have `fsync`.
        let mut at = middle;
        for _ in 0..=nth {
            at = after(at + 1, &|op| matches!(op, Op::SyncEnd { data_only: true, .. }));
        }
        let mut without = log.clone();
        without.ops[at] = Op::WriteBack;
        planted += usize::from(!order(&without).violations.is_empty());
    }
    assert_eq!(planted, 4);
}
