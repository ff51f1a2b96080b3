//! The token that HTTP clients must show: 256 random bits, in a file that only the user who serves can read.
//!
//! It is a secret. It is compared in a time that does not tell where it differs, and never printed.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rand::RngExt as _;
use rustix::fs::OFlags;
use subtle::ConstantTimeEq as _;

use crate::error::{Code, CommandError, CommandResult};

/// How many random bytes it has.
const BYTES: usize = 32;
/// How many characters they are in hex.
const DIGITS: usize = BYTES * 2;
/// The most that is read of a file that should have one line.
const MAX_FILE: u64 = 4096;

/// The token.
pub(crate) struct Token([u8; DIGITS]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads the token, or makes one where there is no file.
    ///
    /// # Errors
    /// When others could read or have put the file there, it is no token, or it cannot be made.
    pub(crate) fn open(path: &Path) -> CommandResult<Self> {
        match Self::create(path) {
            Ok(token) => Ok(token),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            Err(error) => Err(unusable(path).why(error)),
        }
    }

    fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Self::write(file)
    }

    fn write(mut file: File) -> io::Result<Self> {
        let mut digits = [0; DIGITS];
        let random: [u8; BYTES] = rand::rng().random();
        for (pair, byte) in digits.chunks_exact_mut(2).zip(random) {
            let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            (pair[0], pair[1]) = (hex(byte >> 4), hex(byte & 15));
        }
        file.write_all(&digits)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        Ok(Self(digits))
    }

    fn read(path: &Path) -> CommandResult<Self> {
        let failed = |error: io::Error| unusable(path).why(error);
        // A link could be pointed at what somebody else can read.
        let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits();
        let flags = i32::try_from(flags).expect("flags of the system");
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let me = rustix::process::geteuid().as_raw();
        let mode = meta.mode() & 0o7777;
        let wrong = match () {
            () if !meta.is_file() => Some("it is no plain file".to_owned()),
            () if meta.uid() != me => {
                Some(format!("it belongs to user {}, and this is user {me}", meta.uid()))
            }
            () if mode & 0o077 != 0 => Some(format!("other users may read or change it (mode {mode:04o})")),
            () => None,
        };
        if let Some(wrong) = wrong {
            return Err(unusable(path).why(wrong));
        }
        let mut text = Vec::new();
        (&file).take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
        if text.is_empty() {
            // Whoever made it ended before it was written.
            return OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(path)
                .and_then(Self::write)
                .map_err(failed);
        }
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        let token = <[u8; DIGITS]>::try_from(line).ok().filter(|line| line.iter().copied().all(is_digit));
        token.map(Self).ok_or_else(|| unusable(path).why(format!("it is no line of {DIGITS} hex digits")))
    }

    /// Whether a client has shown the token.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn unusable(path: &Path) -> CommandError {
    CommandError::new(
        Code::ApiToken,
        format!("the file {} of the API's token cannot be used", path.display()),
    )
    .hint("remove it, and the next start makes another; or name another place with --token-file")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.token");
        let made = Token::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (65, true));
        let read = Token::open(&path).unwrap();
        assert!(read.is(text.trim_end().as_bytes()) && made.is(text.trim_end().as_bytes()));
        for wrong in ["", "x", &text, &text[..63], &"0".repeat(64)] {
            assert!(!read.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert_eq!(format!("{read:?}"), "Token(..)");
        let other = Token::open(&dir.path().join("other")).unwrap();
        assert!(!other.is(text.trim_end().as_bytes()), "each is another one");
    }

    #[test]
    fn a_file_that_is_not_safe_or_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let digits = "ab".repeat(BYTES);
        for (text, mode, good) in [
            (digits.as_str(), 0o600, true),
            (digits.as_str(), 0o400, true),
            (digits.as_str(), 0o640, false),
            (digits.as_str(), 0o604, false),
            (&digits[1..], 0o600, false),
            (&digits.to_uppercase(), 0o600, false),
            ("two\nlines\n", 0o600, false),
            // Whoever made it did not come to write it.
            ("", 0o600, true),
        ] {
            drop(std::fs::remove_file(&path));
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let opened = Token::open(&path);
            assert_eq!(opened.is_ok(), good, "{text:?} {mode:o}: {:?}", opened.err().map(|e| e.to_string()));
        }
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(Token::open(&link).unwrap_err().code, Code::ApiToken);
        assert_eq!(Token::open(dir.path()).unwrap_err().code, Code::ApiToken);
    }
}
