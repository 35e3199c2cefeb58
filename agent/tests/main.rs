//! Everything the agent promises, each promise a sentence.

mod config;
