//! Polynomials over the field of two elements, as far as content-defined chunking needs them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::crypto::{CryptoError, fill_random};

/// The degree of a repository's polynomial: the largest prime that leaves room for one more byte in 64 bits.
const DEGREE: u32 = 53;

/// A polynomial of degree 53, one bit for each coefficient. In the configuration it is written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Polynomial(u64);

impl Polynomial {
    /// A random irreducible one. About one candidate in 27 is irreducible, so this ends quickly.
    pub(crate) fn random() -> Result<Self, CryptoError> {
        loop {
            let mut bytes = [0; 8];
            fill_random(&mut bytes)?;
            let candidate = (u64::from_le_bytes(bytes) & ((1 << (DEGREE + 1)) - 1)) | (1 << DEGREE) | 1;
            if is_irreducible(candidate) {
                return Ok(Self(candidate));
            }
        }
    }

    /// `value` modulo this polynomial.
    pub(crate) const fn reduce(self, value: u64) -> u64 {
        remainder(value, self.0)
    }

    /// Its degree, always 53.
    pub(crate) const fn degree() -> u32 {
        DEGREE
    }
}

impl fmt::Debug for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Polynomial({:x})", self.0)
    }
}

impl FromStr for Polynomial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16)
            .ok()
            .filter(|bits| degree(*bits) == DEGREE && is_irreducible(*bits))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not an irreducible polynomial of degree {DEGREE} in hexadecimal"))
    }
}

impl Serialize for Polynomial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Polynomial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Degree of a polynomial that is not zero.
const fn degree(value: u64) -> u32 {
    value.ilog2()
}

const fn remainder(mut value: u64, divisor: u64) -> u64 {
    let length = degree(divisor);
    while value != 0 && degree(value) >= length {
        value ^= divisor << (degree(value) - length);
    }
    value
}

/// `a * b` modulo `modulus`, both factors already reduced: shift and add, reducing at each shift.
const fn multiply(mut a: u64, mut b: u64, modulus: u64) -> u64 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        b >>= 1;
        a <<= 1;
        if a >> degree(modulus) & 1 == 1 {
            a ^= modulus;
        }
    }
    product
}

const fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, remainder(a, b));
    }
    a
}

/// Ben-Or's test: no factor of degree up to half of the polynomial's divides `x^(2^i) - x`.
const fn is_irreducible(polynomial: u64) -> bool {
    let mut power = 0b10;
    let mut i = 0;
    while i < degree(polynomial) / 2 {
        power = multiply(power, power, polynomial);
        if greatest_common_divisor(polynomial, power ^ 0b10) != 1 {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_polynomials_of_restic_are_irreducible() {
        for text in ["3DA3358B4DC173", "25b468838dcb75"] {
            assert!(text.parse::<Polynomial>().is_ok(), "{text}");
        }
    }

    #[test]
    fn products_are_not_irreducible() {
        assert!(!is_irreducible(0b101), "x^2+1 = (x+1)^2");
        assert!(!is_irreducible(0b110), "x^2+x");
        assert!(is_irreducible(0b111));
        assert!(is_irreducible(0b1011));
        assert!("20000000000000".parse::<Polynomial>().is_err());
        assert!("7".parse::<Polynomial>().is_err(), "irreducible, but of another degree");
    }

    #[test]
    fn random_polynomials_differ_and_read_back() {
        let (a, b) = (Polynomial::random().unwrap(), Polynomial::random().unwrap());
        assert_ne!(a, b);
        let json = serde_json::to_string(&a).unwrap();
        assert_eq!(serde_json::from_str::<Polynomial>(&json).unwrap(), a);
    }
}
