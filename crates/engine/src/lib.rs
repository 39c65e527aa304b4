//! The API: Engine, Session, Request, Event; memory plan.
#![forbid(unsafe_code)]
