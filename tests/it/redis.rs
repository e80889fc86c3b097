//! The log on Redis held to what real servers answer, and plain clients of it that know nothing of the product.

mod edges;
