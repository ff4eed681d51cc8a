// What a benchmark's figure is, of several readings.

/** The median, the higher one of an even number. @param {number[]} list */
export const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
