//! Arrow's own test suite of Plasma, unchanged, with this project's store in place of Arrow's.
