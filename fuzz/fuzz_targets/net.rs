#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    atoll_net::fuzz::headers(data);
    atoll_net::fuzz::commands(data);
});
