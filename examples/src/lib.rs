//! What the example programs share.

use std::error::Error;
use std::process::ExitCode;

/// Ends a program as its user expects: with status 0, or with the error in words.
pub fn finish(outcome: Result<(), Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
