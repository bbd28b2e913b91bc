//! Integration tests, one binary: each module makes its own directories and servers.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests tell what they saw and why they skip")]

mod attacks;
mod bad_input;
mod bases;
mod ceilings;
mod command_line;
mod compression;
mod conformance;
mod demo;
mod docs;
mod drop_in;
mod end_to_end;
mod faults;
mod flags;
mod foreign_bytes;
mod harness;
mod http_files;
mod images;
mod interrupted;
mod isolated;
mod language;
mod layering;
mod lies;
mod million;
mod names;
mod one_container;
mod parallel;
mod real_commands;
mod real_world;
mod registry;
mod registry_faults;
mod repositories;
mod signals;
mod sparse_files;
mod stages;
mod support;
mod trackers;
mod urls;
mod warnings;
