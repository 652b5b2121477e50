//! Packing: the inverse of each decoder, for writing files and for tests.
