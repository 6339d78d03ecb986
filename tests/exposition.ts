import { expect } from 'vitest'

const label = '[a-z_]+="(?:[^"\\\\\\n]|\\\\["\\\\n])*"'
const sampleLine = new RegExp(`^(([a-z_]+)(?:\\{${label}(?:,${label})*\\})?) (-?[0-9.]+(?:e[+-]?[0-9]+)?)$`)

/**
 * Reads what Prometheus scrapes, as strictly as its format is written down: families are declared once and stay
 * together, samples are there once, and the buckets of histograms add up.
 *
 * @returns the values by sample, such as `up{sink="hook"}`.
 */
export function readExposition(text: string): Record<string, number> {
  const samples = new Map<string, number>()
  const kinds = new Map<string, string>()
  let family = ''
  expect(text.at(-1)).toBe('\n')
  for (const line of text.slice(0, -1).split('\n')) {
    const [, what, name = '', said = ''] = /^# (HELP|TYPE) ([a-z_]+) (.+)$/.exec(line) ?? []
    if (what === 'HELP') {
      expect(kinds.has(name), line).toBe(false)
      kinds.set(family = name, '')
    } else if (what === 'TYPE') {
      expect([name, kinds.get(name)], line).toEqual([family, ''])
      expect(['counter', 'gauge', 'histogram'], line).toContain(said)
      kinds.set(name, said)
    } else {
      const [, sample = '', own = '', value] = sampleLine.exec(line) ?? []
      const stem = kinds.get(family) === 'histogram' ? own.replace(/_(bucket|sum|count)$/, '') : own
      expect([stem, samples.has(sample)], line).toEqual([family, false])
      samples.set(sample, Number(value))
    }
  }
  for (const [name, kind] of kinds) {
    expect(name.endsWith('_total'), name).toBe(kind === 'counter')
    if (kind === 'histogram') expectBucketsToAddUp(name, samples)
  }
  return Object.fromEntries(samples)
}

function expectBucketsToAddUp(name: string, samples: Map<string, number>): void {
  for (const [sample, count] of samples) {
    const [, labels] = new RegExp(`^${name}_count\\{(.*)\\}$`).exec(sample) ?? []
    if (labels === undefined) continue
    const buckets = [...samples].filter(([one]) => one.startsWith(`${name}_bucket{${labels},le=`))
    const counts = buckets.map(([, count]) => count)
    expect(counts).toEqual(counts.toSorted((a, b) => a - b))
    expect(buckets.at(-1)).toEqual([expect.stringContaining('le="+Inf"'), count])
  }
}
