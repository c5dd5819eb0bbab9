//! The one way to standard output and standard error.
//!
//! A reader who has seen enough (`ezscale … | head -1`) closes the pipe. That is no error: what is printed afterwards is
//! dropped, the command does its work to the end, and it exits as it would have. Another error of standard output, such as a
//! full disk behind it, fails the command at its end ([`failed`]): an answer that was not written is no answer.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// What became of standard output.
#[derive(Debug)]
enum State {
    Open,
    /// Its reader went away.
    Closed,
    Failed(io::Error),
}

static STATE: Mutex<State> = Mutex::new(State::Open);

fn note(written: io::Result<()>) {
    let Err(error) = written else { return };
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let State::Open = *state {
        *state = match error.kind() {
            ErrorKind::BrokenPipe => State::Closed,
            _ => State::Failed(error),
        };
    }
}

/// Whether anybody still reads: what has much to print stops where nobody does.
pub(crate) fn is_open() -> bool {
    matches!(*STATE.lock().unwrap_or_else(PoisonError::into_inner), State::Open)
}

/// Flushes standard output; says why something that was printed was not written.
pub(crate) fn failed() -> Option<io::Error> {
    note(io::stdout().lock().flush());
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    match std::mem::replace(&mut *state, State::Closed) {
        State::Failed(error) => Some(error),
        State::Open | State::Closed => None,
    }
}

/// Prints to standard output; see `say!`.
pub(crate) fn out(text: Arguments<'_>, newline: bool) {
    if !is_open() {
        return;
    }
    let mut stdout = io::stdout().lock();
    let written = stdout.write_fmt(text);
    note(if newline {
        written.and_then(|()| stdout.write_all(b"\n"))
    } else {
        written
    });
}

/// Prints a line to standard error. Where nobody reads that, there is nobody to tell.
pub(crate) fn err(text: Arguments<'_>) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_fmt(text).and_then(|()| stderr.write_all(b"\n"));
}

/// Standard output for what writes itself, in pieces: buffered, and done when the reader has gone.
///
/// # Errors
/// As `write` and standard output say; a reader who has gone is no error.
pub(crate) fn stream(write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::with_capacity(64 << 10, Pipe);
    let written = write(&mut out).and_then(|()| Ok(out.flush()?));
    // What the pipe says of itself is told at the end of the program.
    drop(out.into_parts());
    match written {
        Err(_) if !is_open() => Ok(()),
        written => written,
    }
}

/// Standard output, which remembers how it ended.
struct Pipe;

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write(bytes).inspect_err(|error| {
            // The error goes on to the writer; its kind is what is remembered.
            note(Err(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::from(error.kind()),
            }));
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }
}

/// `println!` that ends quietly when nobody reads any more.
macro_rules! say {
    () => { $crate::output::print::out(format_args!(""), true) };
    ($($text:tt)*) => { $crate::output::print::out(format_args!($($text)*), true) };
}

/// `print!` that ends quietly when nobody reads any more.
macro_rules! say_part {
    ($($text:tt)*) => { $crate::output::print::out(format_args!($($text)*), false) };
}

/// `eprintln!` that does not panic when nobody reads any more.
macro_rules! tell {
    ($($text:tt)*) => { $crate::output::print::err(format_args!($($text)*)) };
}
