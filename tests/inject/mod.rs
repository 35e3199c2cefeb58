//! The injecting function: its golden files and properties, and the webhook's answers made of it.

mod documentation;
mod golden;
mod properties;
mod review;
