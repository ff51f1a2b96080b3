//! Zip archives with stored entries: enough for the kits to be real zip files, and for the `unzip` stub.
//!
//! No compression, no zip64, no encryption.

use std::io;

/// One file of an archive.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) mode: u32,
    pub(super) data: Vec<u8>,
}

fn crc(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

fn len(data: usize) -> u32 {
    u32::try_from(data).expect("kits are far below 4 GiB")
}

/// Writes an archive.
pub(super) fn write(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = len(out.len());
        let mut common = Vec::new();
        // Version, flags, method stored, a fixed time (1980-01-01), checksum and sizes.
        common.extend(20_u16.to_le_bytes());
        common.extend([0; 2]);
        common.extend([0; 2]);
        common.extend([0, 0, 0x21, 0]);
        common.extend(crc(&entry.data).to_le_bytes());
        common.extend(len(entry.data.len()).to_le_bytes());
        common.extend(len(entry.data.len()).to_le_bytes());
        common.extend(u16::try_from(entry.name.len()).expect("names are short").to_le_bytes());
        common.extend([0; 2]);
        out.extend(0x0403_4b50_u32.to_le_bytes());
        out.extend(&common);
        out.extend(entry.name.as_bytes());
        out.extend(&entry.data);
        directory.extend(0x0201_4b50_u32.to_le_bytes());
        directory.extend([20, 3]); // made on unix
        directory.extend(&common);
        directory.extend([0; 2 + 2 + 2]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(entry.name.as_bytes());
    }
    let (start, size) = (len(out.len()), len(directory.len()));
    let count = u16::try_from(entries.len()).expect("a few entries").to_le_bytes();
    out.extend(directory);
    out.extend(0x0605_4b50_u32.to_le_bytes());
    out.extend([0; 4]);
    out.extend(count);
    out.extend(count);
    out.extend(size.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

/// Reads an archive of stored entries by its central directory.
pub(super) fn read(bytes: &[u8]) -> io::Result<Vec<Entry>> {
    let bad = || io::Error::other("not a zip archive, or not one of stored entries");
    let u16_at = |at: usize| -> io::Result<usize> {
        let two = bytes.get(at..at + 2).ok_or_else(bad)?;
        Ok(usize::from(u16::from_le_bytes([two[0], two[1]])))
    };
    let u32_at = |at: usize| -> io::Result<u32> {
        let four = bytes.get(at..at + 4).ok_or_else(bad)?;
        Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    };
    let end = bytes.len().checked_sub(22).ok_or_else(bad)?;
    if u32_at(end)? != 0x0605_4b50 {
        return Err(bad());
    }
    let count = u16_at(end + 10)?;
    let mut at = u32_at(end + 16)? as usize;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        if u32_at(at)? != 0x0201_4b50 || u16_at(at + 10)? != 0 {
            return Err(bad());
        }
        let size = u32_at(at + 20)? as usize;
        let (name_len, extra, comment) = (u16_at(at + 28)?, u16_at(at + 30)?, u16_at(at + 32)?);
        let mode = u32_at(at + 38)? >> 16;
        let local = u32_at(at + 42)? as usize;
        let name = bytes.get(at + 46..at + 46 + name_len).ok_or_else(bad)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| bad())?;
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err(io::Error::other(format!(
                "the archive has an entry outside its directory: {name:?}"
            )));
        }
        let start = local + 30 + u16_at(local + 26)? + u16_at(local + 28)?;
        let data = bytes.get(start..start + size).ok_or_else(bad)?.to_vec();
        entries.push(Entry { name, mode, data });
        at += 46 + name_len + extra + comment;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_make_the_round_and_cannot_climb() {
        let entry = |name: &str| Entry { name: name.to_owned(), mode: 0o755, data: b"#!/bin/sh\n".to_vec() };
        let back = read(&write(&[entry("aws/install"), entry("aws/dist/aws")])).unwrap();
        assert_eq!(back[1].name, "aws/dist/aws");
        assert_eq!((back[0].mode, back[0].data.as_slice()), (0o755, &b"#!/bin/sh\n"[..]));
        assert!(read(&write(&[entry("../x")])).is_err());
        assert!(read(b"PK").is_err());
    }
}
