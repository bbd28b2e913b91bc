//! The Dockerfile language: what is accepted and as what, what is refused and how it is told.
//!
//! `tests/dockerfiles/` holds the cases, many to a file, with what must come of each below it. After a change that is
//! meant, `KANNA_BLESS=1` writes what came instead; the commit says why it is another.

mod cases;
mod corpus;
mod messages;
mod strictness;
