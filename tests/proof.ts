import { parseArgs } from 'node:util'
import { prove } from './proving.ts'

const usage = `npm run proof -- [options]

Writes events and delivers them to every kind of sink through failing receivers, while workers and Postgres are killed;
then compares what each receiver has with the log, and a replay with what was sent before. Exits 0 where all is well.

  --events N     default 100000
  --faults N     the share of requests that something goes wrong with; default 0.3
  --workers N    default 3
  --kills N      how often each worker is killed; default 20
  --crashes N    how often Postgres is killed; default 5
  --json         print the figures as JSON`

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '100000' },
    faults: { type: 'string', default: '0.3' },
    workers: { type: 'string', default: '3' },
    kills: { type: 'string', default: '20' },
    crashes: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130))
if (values.help) console.log(usage)
else process.exitCode = await main()

async function main(): Promise<number> {
  const proof = await prove({
    events: Number(values.events), faults: Number(values.faults), workers: Number(values.workers),
    kills: { worker: Number(values.kills), postgres: Number(values.crashes) },
    tell: (text) => process.stderr.write(`${text}\n`),
  })
  if (values.json) console.log(JSON.stringify(proof, null, 2))
  else {
    console.table(Object.fromEntries(Object.entries(proof.sinks).map(([sink, { breaches, ...figures }]) => [sink, figures])))
    console.log(`workers were killed ${proof.kills.worker.join(' + ')} times, Postgres ${proof.kills.postgres}; `
      + `delivery took ${proof.seconds.delivery} s, the replay ${proof.seconds.replay} s; gaps in the books: ${proof.gaps}`)
    for (const error of proof.errors) console.log(`a worker told of an error: ${error}`)
  }
  const isSound = proof.gaps === 0 && proof.errors.length === 0 && Object.entries(proof.sinks).every(([, own]) =>
    own.pending + own.missing + own.unasked + own.outOfOrder + own.changed + own.changedInReplay === 0
    && own.delivered + own.filtered + own.undelivered === own.events && own.received === own.delivered
    && own.replayed === own.deliveredInReplay && own.replayed === own.delivered)
  console.log(isSound ? 'All of it holds.' : 'IT DOES NOT HOLD.')
  return isSound ? 0 : 1
}
