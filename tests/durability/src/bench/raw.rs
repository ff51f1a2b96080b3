//! The limit of the disk: a preallocated log of records with a CRC each, one `fdatasync` a group. It keeps no index,
//! cannot be read by key and never ends; no store can be faster and hold the same promise.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::bench::Anything;

/// Where the log starts anew: it measures writes, it keeps nothing.
const LOG: usize = 256 * 1024 * 1024;
/// The most records in a group, as the store has it.
const MAX_GROUP: usize = 256;

struct Append {
    record: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// A log and its thread.
pub(crate) struct RawLog {
    appends: Option<Sender<Append>>,
    thread: Option<JoinHandle<()>>,
}

impl RawLog {
    pub(crate) fn create(dir: &Path) -> Anything<Self> {
        let file = File::create_new(dir.join("log"))?;
        // Written, not only reserved: a sync need not change what the file system knows of the file.
        let zeros = vec![0; 1024 * 1024];
        for at in (0..LOG).step_by(zeros.len()) {
            file.write_all_at(&zeros, at as u64)?;
        }
        file.sync_all()?;
        let (appends, queue) = channel();
        let thread = std::thread::spawn(move || write(&file, &queue));
        Ok(Self { appends: Some(appends), thread: Some(thread) })
    }

    /// Resolves when the record is durable.
    pub(crate) async fn append(&self, record: Vec<u8>) {
        let (done, answer) = oneshot::channel();
        let appends = self.appends.as_ref().expect("it is there until the log is dropped");
        appends.send(Append { record, done }).expect("the thread ends last");
        answer.await.expect("the log is written");
    }
}

impl Drop for RawLog {
    fn drop(&mut self) {
        drop(self.appends.take());
        if let Some(thread) = self.thread.take() {
            let _a_panic_was_seen_by_the_writers = thread.join();
        }
    }
}

fn write(file: &File, queue: &Receiver<Append>) {
    let mut at = 0;
    let mut bytes = Vec::with_capacity(1024 * 1024);
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(MAX_GROUP - 1));
        bytes.clear();
        for append in &group {
            let len = u32::try_from(append.record.len()).expect("records are small");
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&crc32fast::hash(&append.record).to_le_bytes());
            bytes.extend_from_slice(&append.record);
        }
        if at + bytes.len() > LOG {
            at = 0;
        }
        file.write_all_at(&bytes, at as u64).expect("the log can be written");
        file.sync_data().expect("the log can be synced");
        at += bytes.len();
        for append in group {
            // Who asked may have gone.
            let _ = append.done.send(());
        }
    }
}
