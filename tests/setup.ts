import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { TestProject } from 'vitest/node'
import { connect, localPassword, runFile } from '../src/database.ts'
import { freePort, startPostgres, type PostgresServer } from '../src/postgres.ts'
import { installPgTap } from './pgtap.ts'
import { furnish, inDatabase, templates, temporaryFolder } from './world.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The server's own database, `postgres`, as superuser. */
    serverUrl: string
  }
}

/** Builds the package, starts the Postgres that all tests share, and makes the templates that their databases are cloned from. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await temporaryFolder()
  let server: PostgresServer | undefined
  const teardown = async () => {
    await server?.stop()
    await folder.remove()
  }
  try {
    server = await startPostgres({
      port: await freePort(),
      dataDir: folder.path,
      // The data is thrown away: only the processes may crash in a test, never the machine.
      parameters: { max_connections: '300', fsync: 'off', full_page_writes: 'off' },
    })
    const serverUrl = `postgres://postgres:${localPassword}@127.0.0.1:${server.port}/postgres`
    await Promise.all([makeTemplates(serverUrl), promisify(execFile)(process.execPath, ['build.mjs'])])
    project.provide('serverUrl', serverUrl)
  } catch (error) {
    await teardown()
    throw error
  }
  return teardown
}

async function makeTemplates(serverUrl: string): Promise<void> {
  const admin = connect(serverUrl, { max: 1 })
  await admin.unsafe(`create database ${templates.world}`)
  const world = connect(inDatabase(serverUrl, templates.world), { max: 1 })
  await furnish(world, inDatabase(serverUrl, templates.world))
  await world.end()

  await installPgTap()
  await admin.unsafe(`create database ${templates.pgTap} template ${templates.world}`)
  const pgTap = connect(inDatabase(serverUrl, templates.pgTap), { max: 1 })
  await pgTap`create extension pgtap schema extensions`
  await runFile(pgTap, 'tests/database/helpers.sql')
  await pgTap.end()
  await admin.end()
}
