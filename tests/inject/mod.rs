//! The injecting function: its golden files and properties, and the webhook's answers made of it.

mod choices;
mod documentation;
mod gate;
mod golden;
mod others;
mod outline;
mod properties;
mod review;
