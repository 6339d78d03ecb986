import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import type { Sql } from 'postgres'
import { batchContest, buildContest, bulkContest, catalogContest, growthContest, singleContest } from './contests.ts'
import { drainContest, flatContest, presenceContest } from './delivery.ts'
import { measure, type Contest, type Measurement } from './measure.ts'
import { readingContests, rollupContest } from './reading.ts'
import { startRing, type Ring } from './ring.ts'

const usage = `npm run bench -- [options]

Measures the write path against the bare database, in one run: each contest's contenders take turns, and every
figure is the median of the rounds. Needs pgbench on the PATH (Debian: apt-get install postgresql-15).

  --only NAME         one contest: single, batch, catalog, build, bulk, growth, delivery, presence, flat, rollup or
                      reading (default: all but growth, presence, flat, rollup and reading)
  --rounds N          rounds of each contest (default 5)
  --rows N            rows that the log of the contest growth holds beforehand (default 1000000); for flat and
                      reading, several with commas between (default 10000,1000000,10000000, and 1000000,3000000,10000000)
  --scale N           how much of its backlogs the contests delivery and flat drain (default 1)
  --supa-audit PATH   the SQL of supa_audit, to set it beside the build triggers
  --json              print the figures as JSON`

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    rows: { type: 'string' },
    scale: { type: 'string', default: '1' },
    'supa-audit': { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

if (options.help) console.log(usage)
else await main()

async function main(): Promise<void> {
  const ring = await startRing(options['supa-audit'])
  try {
    const machine = await describeMachine(ring.sql)
    if (!options.json) console.log(machine)
    const measurements: Measurement[] = []
    for await (const contest of chooseContests(ring)) {
      for (const durable of contest.isDurable ? [true] : [true, false]) {
        const measurement = await measure(contest, { rounds: Number(options.rounds), durable, ring })
        measurements.push(measurement)
        if (!options.json) print(measurement)
      }
    }
    if (options.json) console.log(JSON.stringify({ machine, measurements }, null, 2))
  } finally {
    await ring.close()
  }
}

async function* chooseContests(ring: Ring): AsyncGenerator<Contest> {
  const lengths = (otherwise: string) => (options.rows ?? otherwise).split(',').map(Number)
  const contests: Record<string, () => Contest[] | Promise<Contest[]> | AsyncGenerator<Contest>> = {
    single: () => [singleContest(ring)],
    batch: () => [1, 10, 100, 1000].map((size) => batchContest(ring, size)),
    catalog: () => [1, 100].map((size) => catalogContest(ring, size)),
    build: () => [buildContest(ring)],
    bulk: () => [bulkContest(ring)],
    growth: async () => [await growthContest(ring, Number(options.rows ?? 1_000_000))],
    delivery: async () => [await drainContest(ring, Number(options.scale))],
    presence: async () => [await presenceContest(ring)],
    flat: async () => [await flatContest(ring, lengths('10000,1000000,10000000'), Number(options.scale))],
    rollup: () => [rollupContest(ring)],
    reading: () => readingContests(ring, lengths('1000000,3000000,10000000')),
  }
  const names = options.only ? [options.only] : ['single', 'batch', 'catalog', 'build', 'bulk', 'delivery']
  for (const name of names) {
    const make = contests[name]
    if (!make) throw new Error(`There is no contest "${name}". ${usage}`)
    yield* await make()
  }
}

async function describeMachine(sql: Sql): Promise<string> {
  const [{ server } = { server: '' }] = await sql<{ server: string }[]>`
    select 'Postgres ' || current_setting('server_version') || ', fsync ' || current_setting('fsync') as server`
  const model = cpus()[0]?.model.trim() ?? 'unknown CPU'
  return `${cpus().length} × ${model}, Node ${process.version}, ${server}, 4 clients`
}

function print(measurement: Measurement): void {
  const { contest, unit, durable, isLed, isTimed, results } = measurement
  if (isTimed) return printTimes(measurement)
  console.log(`\n${contest} (synchronous_commit = ${durable ? 'on' : 'off'})`)
  const width = Math.max(...results.map(({ name }) => name.length))
  for (const { name, median, low, high, ratio, lowRatio, highRatio } of results) {
    const figures = [median, low, high].map((figure) => Math.round(figure).toLocaleString('en').padStart(9))
    const ratios = `${ratio.toFixed(2)} (${lowRatio.toFixed(2)} to ${highRatio.toFixed(2)})`
    const comparison = isLed ? `the first is ${ratios} times as fast` : `ratio ${ratios}`
    const spread = `(${figures[1]?.trim()} to ${figures[2]?.trim()})`
    console.log(`  ${name.padEnd(width)} ${figures[0]} ${unit}  ${spread}  ${comparison}`)
  }
}

/** One line: how long each took, and how many times as long as the first. */
function printTimes({ contest, unit, results }: Measurement): void {
  const figures = results.map(({ name, median, low, high, ratio }, place) => {
    const [time, ...spread] = [median, low, high].map((figure) => figure < 10 ? figure.toFixed(1) : Math.round(figure).toLocaleString('en'))
    return `${name} ${time} ${unit} (${spread.join(' to ')})${place > 0 ? ` ${ratio < 10 ? ratio.toFixed(2) : Math.round(ratio)}×` : ''}`
  })
  console.log(`${contest}: ${figures.join(', ')}`)
}
