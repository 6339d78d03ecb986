import { shortId } from './format.ts'
import { linkTo } from './route.ts'
import { useWorld } from './world.ts'

/** What somebody is called: by the configuration, else a part of their id. */
export function useNames() {
  const { config, viewer, orgs, apps } = useWorld()
  const person = (id: string) => config.people[id]?.split('@')[0] ?? shortId(id)
  return {
    person: (id: string) => (id === viewer.id ? `${config.people[id] ? person(id) : 'You'}` : person(id)),
    /** Of an organization that may not be read, only its apps may: it is named after them. */
    org: (id: string) => {
      const app = apps.find(({ owner_org }) => owner_org === id)
      return orgs.find((org) => org.id === id)?.name ?? (app ? `Owner of ${app.name}` : shortId(id))
    },
    app: (id: string) => apps.find(({ app_id }) => app_id === id)?.name ?? id,
  }
}

export function PersonLink({ id }: { id: string | null }) {
  const { route } = useWorld()
  const names = useNames()
  if (!id) return <span class="faint">a service</span>
  return <a class={/…/.test(names.person(id)) ? 'id' : undefined} href={linkTo(route, 'people', id)} title={id}>{names.person(id)}</a>
}

/** The surfaces that somebody was seen on, each in its color and place, and in words. */
export function SurfaceDots({ surfaces }: { surfaces: string[] }) {
  const known = ['dashboard', 'cli', 'builder']
  const shown = [...known, ...surfaces.filter((surface) => !known.includes(surface))]
  return (
    <span class="dots">
      {shown.map((surface) => <span key={surface} class={`dot ${surfaces.includes(surface) ? surface : 'off'}`} aria-hidden="true" />)}
      <span class="dots-words">{surfaces.map(surfaceName).join(', ') || 'none'}</span>
    </span>
  )
}

export const surfaceName = (surface: string): string => ({ dashboard: 'Dashboard', cli: 'CLI', builder: 'Builder' })[surface] ?? surface
