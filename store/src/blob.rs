//! Byte strings of any size in the tree: cut into values of at most 4 KiB, or, when large, in a payload file that
//! the first value names.
//!
//! sled moves values above some 4 KiB into files that it never syncs, so no value may be larger.

use crate::codec::{Hash, seal, unseal};
use crate::keys::CHUNK;
use crate::tree::Trouble;

/// The most a value may have.
pub(crate) const MAX_VALUE: usize = 4096;
/// What is larger goes to a payload file.
pub(crate) const INLINE_LIMIT: usize = 64 * 1024;

const CRC: usize = 4;
const HEADER: usize = 1 + 4 + 8;
const INLINE: u8 = 0;
const PAYLOAD: u8 = 1;

/// Where the bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    /// In the tree.
    Inline(std::borrow::Cow<'a, [u8]>),
    /// In the payload file of this name.
    Payload { len: u64, digest: Hash },
}

impl Body<'_> {
    /// What stands for the bytes in hashes.
    pub(crate) fn hashed(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Payload { digest, .. } => digest,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Payload { len, .. } => *len,
        }
    }
}

/// How many values so many inline bytes take.
pub(crate) fn values(len: usize) -> u16 {
    let more = len.saturating_sub(MAX_VALUE - HEADER - CRC).div_ceil(MAX_VALUE - CRC);
    u16::try_from(1 + more).expect("inline bytes are few")
}

/// Hands each key and sealed value to `put`.
pub(crate) fn write(prefix: &[u8], events: u32, body: &Body<'_>, mut put: impl FnMut(Vec<u8>, Vec<u8>)) {
    let mut chunk = 0_u16;
    let mut put = |value: Vec<u8>| {
        let mut key = Vec::with_capacity(prefix.len() + CHUNK);
        key.extend_from_slice(prefix);
        key.extend_from_slice(&chunk.to_be_bytes());
        let value = seal(&key, value);
        debug_assert!(value.len() <= MAX_VALUE, "chunks are cut so that they fit");
        put(key, value);
        chunk += 1;
    };
    let header = |kind: u8, room: usize| {
        let mut value = Vec::with_capacity(HEADER + room + CRC);
        value.push(kind);
        value.extend_from_slice(&events.to_be_bytes());
        value.extend_from_slice(&body.len().to_be_bytes());
        value
    };
    match body {
        Body::Payload { digest, .. } => {
            let mut value = header(PAYLOAD, digest.len());
            value.extend_from_slice(digest);
            put(value);
        }
        Body::Inline(bytes) => {
            let (first, rest) = bytes.split_at(bytes.len().min(MAX_VALUE - HEADER - CRC));
            let mut value = header(INLINE, first.len());
            value.extend_from_slice(first);
            put(value);
            for more in rest.chunks(MAX_VALUE - CRC) {
                let mut value = Vec::with_capacity(more.len() + CRC);
                value.extend_from_slice(more);
                put(value);
            }
        }
    }
}

/// One byte string read back.
#[derive(Debug)]
pub(crate) struct Blob {
    /// Its keys without the chunk number.
    pub(crate) prefix: Vec<u8>,
    pub(crate) events: u32,
    pub(crate) body: Body<'static>,
}

/// Why one could not be read.
#[derive(Debug)]
pub(crate) struct BadBlob {
    /// Its keys without the chunk number; empty when not even that is known.
    pub(crate) prefix: Vec<u8>,
    pub(crate) what: Trouble,
}

/// Puts byte strings together from a scan of their keys.
pub(crate) struct Blobs<I: Iterator> {
    values: std::iter::Peekable<I>,
    broken: Option<Vec<u8>>,
}

impl<I, V> Blobs<I>
where
    I: Iterator<Item = Result<(V, V), Trouble>>,
    V: AsRef<[u8]>,
{
    pub(crate) fn new(values: I) -> Self {
        Self { values: values.peekable(), broken: None }
    }

    fn bad(&mut self, prefix: &[u8], what: impl Into<String>) -> BadBlob {
        self.broken = Some(prefix.to_owned());
        BadBlob { prefix: prefix.to_owned(), what: Trouble::Damage(what.into()) }
    }

    fn read(&mut self, prefix: &[u8], first: &[u8]) -> Result<Blob, BadBlob> {
        let parse = || {
            let (&kind, rest) = first.split_first()?;
            let (events, rest) = rest.split_first_chunk::<4>()?;
            let (len, rest) = rest.split_first_chunk::<8>()?;
            Some((kind, u32::from_be_bytes(*events), u64::from_be_bytes(*len), rest))
        };
        let Some((kind, events, len, rest)) = parse() else {
            return Err(self.bad(prefix, "its first value is too short"));
        };
        let body = match (kind, <Hash>::try_from(rest)) {
            (PAYLOAD, Ok(digest)) => Body::Payload { len, digest },
            (INLINE, _) => {
                let mut bytes = rest.to_vec();
                let mut chunk = 1_u16;
                while (bytes.len() as u64) < len {
                    // It was not read, which says nothing of what is there.
                    if let Some(Err(what)) = self.values.next_if(|next| matches!(next, Err(Trouble::Io(_)))) {
                        return Err(BadBlob { prefix: Vec::new(), what });
                    }
                    let more = self.values.next_if(|next| {
                        next.as_ref().is_ok_and(|(key, _)| {
                            key.as_ref().strip_prefix(prefix) == Some(&chunk.to_be_bytes()[..])
                        })
                    });
                    let Some(Ok((key, value))) = more else {
                        return Err(self.bad(prefix, format!("its value {chunk} is missing")));
                    };
                    let Some(more) = unseal(key.as_ref(), value.as_ref()) else {
                        return Err(
                            self.bad(prefix, format!("its value {chunk} does not match its checksum"))
                        );
                    };
                    bytes.extend_from_slice(more);
                    chunk += 1;
                }
                if bytes.len() as u64 != len {
                    return Err(
                        self.bad(prefix, format!("it has {} bytes and should have {len}", bytes.len()))
                    );
                }
                Body::Inline(bytes.into())
            }
            _ => return Err(self.bad(prefix, format!("it is of an unknown kind ({kind})"))),
        };
        Ok(Blob { prefix: prefix.to_owned(), events, body })
    }
}

impl<I, V> Iterator for Blobs<I>
where
    I: Iterator<Item = Result<(V, V), Trouble>>,
    V: AsRef<[u8]>,
{
    type Item = Result<Blob, BadBlob>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (key, value) = match self.values.next()? {
                Ok(pair) => pair,
                Err(what) => return Some(Err(BadBlob { prefix: Vec::new(), what })),
            };
            let (key, value) = (key.as_ref(), value.as_ref());
            let Some((prefix, chunk)) = key.split_last_chunk::<CHUNK>() else {
                return Some(Err(self.bad(key, "its key is too short")));
            };
            if self.broken.as_deref() == Some(prefix) {
                continue;
            }
            if *chunk != [0; CHUNK] {
                return Some(Err(self.bad(prefix, "its first value is missing")));
            }
            return Some(match unseal(key, value) {
                Some(first) => self.read(prefix, first),
                None => Err(self.bad(prefix, "its first value does not match its checksum")),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn stored(size: usize) -> (Vec<u8>, Pairs) {
        let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
        let mut pairs = Pairs::new();
        write(b"rX", 3, &Body::Inline((&bytes).into()), |key, value| pairs.push((key, value)));
        (bytes, pairs)
    }

    fn read(pairs: &Pairs) -> Vec<Result<Vec<u8>, String>> {
        Blobs::new(pairs.iter().cloned().map(Ok))
            .map(|blob| blob.map(|blob| blob.body.hashed().to_vec()).map_err(|bad| bad.what.to_string()))
            .collect()
    }

    #[test]
    fn every_size_round_trips_in_small_values() {
        for size in [0, 1, 4078, 4079, 4080, 8170, 8171, 8172, INLINE_LIMIT] {
            let (bytes, pairs) = stored(size);
            assert!(pairs.iter().all(|(_, value)| value.len() <= MAX_VALUE));
            assert_eq!(usize::from(values(size)), pairs.len(), "{size}");
            assert_eq!(read(&pairs), [Ok(bytes)], "{size}");
        }
    }

    #[test]
    fn a_value_that_the_system_does_not_give_is_not_missing() {
        let (bytes, pairs) = stored(10_000);
        for at in 0..3 {
            let full = || Trouble::Io(std::io::Error::from_raw_os_error(28));
            let values = pairs.iter().cloned().enumerate();
            let values = values.map(|(n, pair)| if n == at { Err(full()) } else { Ok(pair) });
            let first = Blobs::new(values).next().unwrap();
            assert!(matches!(first, Err(BadBlob { what: Trouble::Io(_), .. })), "value {at}");
        }
        assert_eq!(read(&pairs), [Ok(bytes)]);
    }

    #[test]
    fn a_missing_swapped_or_changed_value_is_one_error() {
        let (_, pairs) = stored(10_000);
        assert_eq!(pairs.len(), 3);
        for gone in 0..3 {
            let mut pairs = pairs.clone();
            pairs.remove(gone);
            assert!(matches!(read(&pairs)[..], [Err(_)]), "without value {gone}");
        }
        for at in 0..3 {
            let mut pairs = pairs.clone();
            pairs[at].1[100] ^= 4;
            assert!(matches!(read(&pairs)[..], [Err(_)]), "value {at} changed");
        }
        let mut pairs = pairs;
        let (one, two) = (pairs[1].1.clone(), pairs[2].1.clone());
        (pairs[1].1, pairs[2].1) = (two, one);
        assert!(matches!(read(&pairs)[..], [Err(_)]), "values swapped");
    }
}
