//! What the room promises, tried on real trees: a suite that every tracker passes ([`contract`]), generated programs
//! ([`programs`]), and what is beside them: ignored paths, foreign files, lossy modes ([`rules`]); costs and hand-overs
//! ([`watching`]).

mod calls;
mod contract;
mod programs;
mod reference;
mod rules;
mod watching;
mod world;
