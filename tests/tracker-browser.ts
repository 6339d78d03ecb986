import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sparticuz from '@sparticuz/chromium'
import { build } from 'esbuild'
import { chromium, type BrowserContext } from 'playwright-core'
import { freePort } from '../src/postgres.ts'

// Without these, Chromium looks for hosts of its maker's at every start.
const quiet = ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run', '--disable-quic', '--disable-gpu']

/** CHROMIUM_PATH, else the system's, else the one that comes as an npm package. */
async function executable(): Promise<string> {
  return [process.env.CHROMIUM_PATH, '/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => path && existsSync(path))
    ?? sparticuz.executablePath()
}

/** A real Chromium with a profile of its own, which outlives `restart`. */
export type Browser = { readonly context: BrowserContext, restart(): Promise<void>, close(): Promise<void> }

export async function startBrowser(): Promise<Browser> {
  const profile = mkdtempSync(join(tmpdir(), 'actorscope-chromium-'))
  const launch = async () => chromium.launchPersistentContext(profile, {
    executablePath: await executable(),
    args: [...quiet, ...process.getuid?.() === 0 ? ['--no-sandbox'] : []],
    // Pages that are gone back to shall be as they were left.
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
    timeout: 60_000,
  })
  let context = await launch()
  return {
    get context() { return context },
    async restart() {
      await context.close()
      context = await launch()
    },
    async close() {
      await context.close()
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

/** Serves pages that load supabase-js and the tracker, and one that loads nothing. */
export async function startPages(): Promise<{ readonly url: string, close(): Promise<void> }> {
  const { outputFiles: [app] } = await build({
    entryPoints: [join(import.meta.dirname, 'tracker-app.ts')], bundle: true, minify: true, platform: 'browser', format: 'iife', write: false, logLevel: 'error' })
  const server = createServer(({ url = '/' }, answer) => {
    if (url.startsWith('/app.js')) return answer.writeHead(200, { 'content-type': 'text/javascript' }).end(app!.text)
    const script = url.startsWith('/app') ? '<script src="/app.js"></script>' : ''
    answer.writeHead(200, { 'content-type': 'text/html' }).end(`<!doctype html><title>${url}</title>${script}`)
  })
  const port = await freePort()
  await new Promise<void>((done) => server.listen(port, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${port}`,
    close: () => new Promise((done) => { server.close(() => done()); server.closeAllConnections() }),
  }
}
