use std::time::Duration;

use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::matmul::product_peak;
use llamacpu_kernels::threads::Pool;

#[test]
fn every_instruction_set_has_a_peak() {
    let pool = Pool::new(1).unwrap();
    for isa in Isa::available() {
        let rate = product_peak(&Context::new(*isa, &pool), Duration::ZERO).unwrap();
        assert!(rate.is_finite() && rate > 0.0, "{}", isa.name());
    }
}
