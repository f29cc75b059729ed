//! Functions of one number that compilers turn into vector instructions: no branch, no call.

/// 1.5 * 2^23: adding it to a number leaves the nearest whole number in the last bits of the sum.
const WHOLE: f32 = 12_582_912.0;

/// The whole number that is nearest, of one between 0 and 255.
#[inline(always)]
pub(super) fn nearest_byte(x: f32) -> u8 {
    (x + WHOLE).to_bits() as u8
}

/// e^x to within 2e-7 of it, for `x` between -87 and 88; beyond, as at the ends.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 88.0 { x } else { 88.0 };
    let shifted = x * std::f32::consts::LOG2_E + WHOLE;
    let whole = shifted - WHOLE;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    // Cephes' polynomial for e^rest.
    let mut sum = 1.987_569_1e-4;
    for factor in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        sum = sum * rest + factor;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(WHOLE.to_bits()).wrapping_add(127) << 23);
    (sum * rest * rest + rest + 1.0) * power
}

/// x/2 (1 + erf(x/√2)), erf to within 2e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let root = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * root);
    let mut sum = 1.061_405_4;
    for factor in [-1.453_152_1, 1.421_413_7, -0.284_496_72, 0.254_829_6] {
        sum = sum * t + factor;
    }
    let erf = 1.0 - sum * t * exp(-root * root);
    0.5 * (x + x.abs() * erf)
}

#[cfg(test)]
mod tests {
    use super::{exp, gelu};

    #[test]
    fn powers_of_e_are_right_to_the_last_digits() {
        for step in -8_700..8_800 {
            let x = step as f32 / 100.0;
            let right = f64::from(x).exp();
            assert!((f64::from(exp(x)) / right - 1.0).abs() < 3e-7, "e^{x}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn gelu_is_right_to_the_last_digits() {
        // x, x/2 (1 + erf(x/√2)), by a calculator with 20 digits.
        for (x, right) in [
            (0.0, 0.0),
            (0.1, 0.053_982_784),
            (-0.5, -0.154_268_77),
            (1.0, 0.841_344_7),
            (-1.0, -0.158_655_25),
            (2.5, 2.484_475_8),
            (-3.0, -0.004_049_694),
            (9.0, 9.0),
            (-20.0, 0.0),
        ] {
            assert!((gelu(x) - right).abs() < 1e-6, "{x}: {} is not {right}", gelu(x));
        }
    }
}
