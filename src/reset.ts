import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { StackError } from './errors.ts'
import { isRunning } from './postgres.ts'
import { readSettings } from './settings.ts'

/** `npm run reset`: empties the data folder, so that the next start begins with a fresh demo world. */
async function reset(): Promise<void> {
  const { dataDir } = readSettings(process.env)
  if (await isRunning(dataDir)) {
    throw new StackError('data_in_use', `Postgres runs on ${dataDir}. Stop npm start first.`)
  }
  // Only what the stack made: the folder may be anybody's.
  for (const name of ['postgres', 'postgres.new', 'postgres.password', 'postgres.log', 'events.ndjson']) {
    await rm(join(dataDir, name), { recursive: true, force: true })
  }
  console.log(`Emptied ${dataDir}.`)
}

await reset().catch((error: unknown) => {
  console.error(error instanceof StackError ? error.message : error)
  process.exitCode = 1
})
