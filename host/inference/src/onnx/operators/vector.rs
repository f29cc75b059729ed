//! Functions of one number that compilers turn into vector instructions: no branch, no call.

/// Whether the CPU that a multiversioned function is compiled for multiplies and adds in one step.
macro_rules! has_fma {
    () => {
        cfg!(target_arch = "aarch64") || multiversion::target::target_cfg_f!(target_feature = "fma")
    };
}
pub(super) use has_fma;

/// `a * b + c`, in one step on CPUs that have `FMA`; others would call a function for that.
#[inline(always)]
pub(super) fn fused<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// 1.5 * 2^23: adding it to a number leaves the nearest whole number in the last bits of the sum.
const WHOLE: f32 = 12_582_912.0;

/// The whole number that is nearest to `a * b`, which is between 0 and 255.
#[inline(always)]
pub(super) fn nearest_byte<const FMA: bool>(a: f32, b: f32) -> u8 {
    fused::<FMA>(a, b, WHOLE).to_bits() as u8
}

/// e^x to within 2e-7 of it, for `x` between -87 and 88; beyond, as at the ends.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 88.0 { x } else { 88.0 };
    let shifted = fused::<FMA>(x, std::f32::consts::LOG2_E, WHOLE);
    let whole = shifted - WHOLE;
    let rest = fused::<FMA>(whole, -LN_2_LOW, fused::<FMA>(whole, -LN_2_HIGH, x));
    // Cephes' polynomial for e^rest.
    let mut sum = 1.987_569_1e-4;
    for factor in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        sum = fused::<FMA>(sum, rest, factor);
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(WHOLE.to_bits()).wrapping_add(127) << 23);
    (fused::<FMA>(sum * rest, rest, rest) + 1.0) * power
}

/// x/2 (1 + erf(x/√2)) to within 5e-5: what follows is rounded to 8 bits, whose steps are hundreds of times as large.
///
/// erf by a polynomial that has its least error over 0 to 3, and 1 beyond; the series that are right to the last digit need
/// a division and a power of e, and take twice as long.
#[inline(always)]
pub(super) fn gelu<const FMA: bool>(x: f32) -> f32 {
    const END: f32 = 3.0;
    let root = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let square = root * root;
    let mut sum = 4.073_469_4e-8;
    for factor in [
        -1.944_542_4e-6,
        4.105_616_6e-5,
        -5.110_01e-4,
        4.235_259_7e-3,
        -2.510_241_8e-2,
        1.110_787_2e-1,
        -3.753_145e-1,
        1.128_268_4,
    ] {
        sum = fused::<FMA>(sum, square, factor);
    }
    let erf = if root < END { sum * root } else { 1.0 };
    0.5 * fused::<FMA>(x.abs(), erf, x)
}

/// All numbers in one, `N` side by side, a power of two: `take` adds a number to what there is, `join` makes one of two.
#[inline(always)]
pub(super) fn fold<const N: usize>(
    numbers: &[f32],
    first: f32,
    take: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let (chunks, rest) = numbers.as_chunks::<N>();
    let mut lanes = [first; N];
    for chunk in chunks {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane = take(*lane, *number);
        }
    }
    rest.iter().fold(reduce(lanes, join), |all, number| take(all, *number))
}

/// All lanes in one, in pairs of pairs: in a chain each step would wait for the one before.
#[inline(always)]
pub(super) fn reduce<const N: usize>(mut lanes: [f32; N], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = N;
    while width > 1 {
        width /= 2;
        for at in 0..width {
            lanes[at] = join(lanes[at], lanes[at + width]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::{exp, fold, gelu};

    #[test]
    fn powers_of_e_are_right_to_the_last_digits() {
        for step in -8_700..8_800 {
            let x = step as f32 / 100.0;
            let right = f64::from(x).exp();
            for power in [exp::<false>(x), exp::<true>(x)] {
                assert!((f64::from(power) / right - 1.0).abs() < 3e-7, "e^{x}");
            }
        }
        assert!(exp::<true>(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn gelu_is_right_to_four_digits() {
        // x, x/2 (1 + erf(x/√2)), by a calculator with 20 digits.
        for (x, right) in [
            (0.0, 0.0),
            (0.1, 0.053_982_784),
            (-0.5, -0.154_268_77),
            (1.0, 0.841_344_7),
            (-1.0, -0.158_655_25),
            (2.5, 2.484_475_8),
            (-3.0, -0.004_049_694),
            (4.2, 4.199_944),
            (4.3, 4.299_963_3),
            (9.0, 9.0),
            (-20.0, 0.0),
        ] {
            for bent in [gelu::<false>(x), gelu::<true>(x)] {
                assert!((bent - right).abs() < 5e-5, "{x}: {bent} is not {right}");
            }
        }
    }

    #[test]
    fn no_number_is_left_out() {
        let numbers: [f32; 37] = std::array::from_fn(|at| (at * 5 % 37) as f32);
        assert_eq!(fold::<16>(&numbers, 0.0, |a, b| a + b, |a, b| a + b), 666.0);
        assert_eq!(fold::<16>(&numbers, f32::INFINITY, f32::min, f32::min), 0.0);
        assert_eq!(fold::<16>(&numbers, 0.0, f32::max, f32::max), 36.0);
    }
}
