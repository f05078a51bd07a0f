//! The engine as its users see it: models opened from files, sessions stepped.

mod loading;
mod steps;
mod tiny_model;
