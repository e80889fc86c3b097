//! A changed key, id or number of shards is taken over by `handlers reroute` with all that the handler has: nothing is lost,
//! nothing is done twice, nothing is out of order.

mod accounts;
mod program;
mod under_load;
