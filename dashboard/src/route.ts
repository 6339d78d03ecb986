import { useEffect, useMemo, useState } from 'preact/hooks'

// All that a page shows is in its address, behind the #: it can be kept, sent and gone back to, on any static host.

/** Where somebody is: `#/people/<id>?org=…&range=30d`. */
export type Route = {
  section: string
  id?: string
  params: URLSearchParams
}

/** What is chosen for all sections, and goes with people from one to the next. */
const kept = ['org', 'app', 'range', 'since', 'until']

export function readRoute(hash = location.hash): Route {
  const [path = '', query] = hash.replace(/^#\/?/, '').split('?')
  const [section = '', id] = path.split('/').map(decodeURIComponent)
  return { section, id, params: new URLSearchParams(query) }
}

/** Told of every address, at once: what is typed next must find what was typed before. */
const listeners = new Set<() => void>()

export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash)
  useEffect(() => {
    const read = () => setHash(location.hash)
    listeners.add(read)
    addEventListener('hashchange', read)
    return () => {
      listeners.delete(read)
      removeEventListener('hashchange', read)
    }
  }, [])
  return useMemo(() => readRoute(hash), [hash])
}

/** The address of a section, with what is chosen for all of them. */
export function linkTo(route: Route, section: string, id?: string): string {
  const params = new URLSearchParams([...route.params].filter(([name]) => kept.includes(name)))
  return addressOf({ section, id, params })
}

/** Stays in the section and changes what is chosen; null takes a choice back. */
export function choose(changes: Record<string, string | null>): void {
  const { section, id, params } = readRoute()
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') params.delete(name)
    else params.set(name, value)
  }
  location.hash = addressOf({ section, id, params })
  for (const read of listeners) read()
}

function addressOf({ section, id, params }: Route): string {
  const path = [section, ...id === undefined ? [] : [id]].map(encodeURIComponent).join('/')
  const query = params.toString()
  return `#/${path}${query && `?${query}`}`
}
