//! A small web server for one test: ranges, answers that are cut off, and a record of what was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What is asked of it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /path`.
    pub(crate) line: String,
    /// Header lines in lower case.
    pub(crate) headers: Vec<String>,
}

/// The answer to one request.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    /// After so many bytes of the body the connection is cut.
    pub(crate) cut: Option<usize>,
}

/// A running server; it ends with the runtime.
pub(crate) struct Web {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Web {
    pub(crate) async fn serve(answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (record, answer) = (Arc::clone(&asked), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
                tokio::spawn(async move { drop(one(stream, &record, &*answer).await) });
            }
        });
        Self { port, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic inside").clone()
    }
}

async fn one(
    stream: TcpStream,
    record: &Mutex<Vec<Asked>>,
    answer: &(impl Fn(&Asked, usize) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        if stream.read_line(&mut header).await? == 0 || header.trim().is_empty() {
            break;
        }
        headers.push(header.trim().to_lowercase());
    }
    let length = headers.iter().find_map(|h| h.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let asked = Asked { line: line.trim().to_owned(), headers };
    let number = {
        let mut all = record.lock().expect("no panic inside");
        all.push(asked.clone());
        all.len()
    };
    let Answer { body, cut } = answer(&asked, number);
    let from: usize = asked
        .headers
        .iter()
        .find_map(|h| h.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    let head = if from == 0 {
        "HTTP/1.1 200 OK".to_owned()
    } else if from < body.len() {
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
            body.len() - 1,
            body.len()
        )
    } else {
        stream
            .write_all(
                b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )
            .await?;
        return stream.shutdown().await;
    };
    let rest = &body[from..];
    let head = format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&rest[..cut.unwrap_or(rest.len()).min(rest.len())]).await?;
    stream.flush().await?;
    stream.shutdown().await
}
