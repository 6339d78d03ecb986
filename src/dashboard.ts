import { readdir, readFile } from 'node:fs/promises'
import { extname, join, sep } from 'node:path'
import { projectDir } from './settings.ts'

/** Where `npm run build` puts the dashboard's files, and the package has them. */
export const dashboardDir = join(projectDir, 'dist/dashboard')

/** People of the demo world whom anybody at this machine may come in as; see dashboard/src/config.ts. */
export type Demo = { password: string, people: { id: string, email: string, about: string }[] }

type Site = (method: string, path: string) => Promise<Response | undefined>

/**
 * The dashboard as a site: its files, and the `config.json` that they read. Answers undefined to a path that is none
 * of theirs.
 *
 * @param config what `config.json` says; read by anybody who asks
 */
export function startDashboard(config: { publishableKey: string, demo?: Demo }): Site {
  const { publishableKey, demo } = config
  const people = Object.fromEntries(demo?.people.map(({ id, email }) => [id, email]) ?? [])
  // The project answers where the page came from, by whatever name this machine is reached.
  const told = JSON.stringify({ url: '/', publishableKey, people, demo })
  return async (method, path) => {
    if (method !== 'GET' && method !== 'HEAD') return undefined
    if (path === '/config.json') return answer('.json', told)
    const name = path === '/' ? 'index.html' : path.slice(1)
    // Only what the folder lists is served: no path leads out of it. It may be built anew meanwhile.
    const listed = (await readdir(dashboardDir, { recursive: true }).catch(() => [])).map((file) => file.replaceAll(sep, '/'))
    if (!listed.includes(name) || !types[extname(name)]) return undefined
    return answer(extname(name), await readFile(join(dashboardDir, name)), name.startsWith('assets/'))
  }
}

const types: Record<string, string> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.svg': 'image/svg+xml',
}

// Scripts and styles are the folder's alone, and speak to nobody but where they came from.
const policy = [
  "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
  "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
].join('; ')

function answer(extension: string, body: string | Buffer, isNamedByContent = false): Response {
  return new Response(body, { headers: {
    'content-type': types[extension] ?? '',
    'cache-control': isNamedByContent ? 'public, max-age=31536000, immutable' : 'no-cache',
    'content-security-policy': policy,
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  } })
}
