// What a benchmark's figure is, of several readings.

/** The median, the higher one of an even number. @param {number[]} list */
export const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

/** Half the notch of their median: how far off it may well be. @param {number[]} list */
export function notch(list) {
  const sorted = [...list].sort((a, b) => a - b);
  const quartile = (/** @type {number} */ q) => {
    const at = q * (sorted.length - 1);
    return sorted[Math.floor(at)] + (at % 1) * (sorted[Math.ceil(at)] - sorted[Math.floor(at)]);
  };
  return (1.57 * (quartile(0.75) - quartile(0.25))) / Math.sqrt(sorted.length);
}
