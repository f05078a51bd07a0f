//! The engine as its users see it: models opened from files, sessions stepped.

mod hidden;
mod loading;
mod prepared;
mod saved;
mod sets;
mod steps;
mod tiny_model;
