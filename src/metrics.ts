type Labels = Record<string, string>
type Kind = 'counter' | 'gauge' | 'histogram'
type Sample = { name: string, labels: Labels, value: number }

/** What is counted for Prometheus, in the format of https://prometheus.io/docs/instrumenting/exposition_formats. */
export class Metrics {
  private readonly families = new Map<string, { help: string, kind: Kind, samples: Map<string, Sample> }>()

  /** Declares a metric. */
  declare(name: string, kind: Kind, help: string): void {
    this.families.set(name, { help, kind, samples: new Map() })
  }

  /** Adds to a counter. */
  add(name: string, labels: Labels, value = 1): void {
    this.sample(name, name, labels).value += value
  }

  /** Sets a gauge. */
  set(name: string, labels: Labels, value: number): void {
    this.sample(name, name, labels).value = value
  }

  /** Puts a value into a histogram. */
  observe(name: string, labels: Labels, value: number): void {
    for (const bound of bounds) {
      const bucket = this.sample(name, `${name}_bucket`, { ...labels, le: bound === Infinity ? '+Inf' : String(bound) })
      if (value <= bound) bucket.value++
    }
    this.sample(name, `${name}_sum`, labels).value += value
    this.sample(name, `${name}_count`, labels).value++
  }

  /** Forgets all samples of a metric. */
  clear(name: string): void {
    this.families.get(name)?.samples.clear()
  }

  /** All metrics as Prometheus reads them. */
  text(): string {
    const lines: string[] = []
    for (const [name, { help, kind, samples }] of this.families) {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`)
      for (const { name: own, labels, value } of samples.values()) lines.push(`${own}${labelText(labels)} ${value}`)
    }
    return `${lines.join('\n')}\n`
  }

  private sample(family: string, name: string, labels: Labels): Sample {
    const samples = this.families.get(family)!.samples
    const key = name + labelText(labels)
    const sample = samples.get(key) ?? { name, labels, value: 0 }
    samples.set(key, sample)
    return sample
  }
}

const bounds = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, Infinity]

function labelText(labels: Labels): string {
  const escaped = (value: string) => value.replace(/["\\]/g, '\\$&').replaceAll('\n', '\\n')
  const texts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`)
  return texts.length > 0 ? `{${texts.join(',')}}` : ''
}
